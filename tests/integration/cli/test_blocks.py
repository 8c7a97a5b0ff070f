"""`allocate`, `free`, `table`, `can-allocate`: text, JSON and exit codes."""

import json

from tests.integration.cli.console import Console


def test_a_sequence_from_its_first_block_to_its_last(console: Console) -> None:
    assert console.out("allocate", 10, 2) == (
        "granted 2 blocks: 0 1\nof 16 tokens on device 7; the table has 2 blocks now\n"
    )
    assert console.out("allocate", 10) == (
        "granted 1 block: 2\nof 16 tokens on device 7; the table has 3 blocks now\n"
    )
    assert console.out("table", 10) == "3 blocks of 16 tokens on device 7\n0 1 2\n"
    assert console.out("free", 10) == "freed 3 blocks\n"
    assert console.out("free", 10) == "freed 0 blocks\n"
    assert console.error("table", 10, expect=1) == (
        "error: engine 'default' has no sequence 10 in pool 'main'\n"
    )


def test_a_refusal_is_an_answer_with_exit_code_1(console: Console) -> None:
    console.out("allocate", 10, 2, "--pool", "small")
    assert console.out("allocate", 11, 2, "--pool", "small", expect=1) == (
        "refused, POOL_EXHAUSTED: 2 needed, 1 free; try again in 0.01 s\n"
    )
    assert console.out("allocate", 11, 4, "--pool", "small", "--max-wait", "0.01", expect=1) == (
        "refused, EXCEEDS_POOL: 4 needed, 1 free; trying again cannot help\n"
    )


def test_can_allocate_answers_with_its_exit_code(console: Console) -> None:
    assert console.out("can-allocate", 64) == "yes, 64 free\n"
    assert console.out("can-allocate", 65, expect=1) == "no, 64 free\n"
    assert console.out("can-allocate", 0) == "yes, 64 free\n"


def test_json(console: Console) -> None:
    def answer(*arguments: object, expect: int = 0) -> object:
        return json.loads(console.out(*arguments, "--json", expect=expect))

    granted = {"block_numbers": [0, 1], "block_size": 16, "device_id": 7, "table_length": 2}
    assert answer("allocate", 2**64 - 1, 2) == {"granted": granted}
    assert answer("table", 2**64 - 1) == {
        "block_numbers": [0, 1],
        "block_size": 16,
        "device_id": 7,
        "first_index": 0,
    }
    assert answer("can-allocate", 63, expect=1) == {"can_allocate": False, "free_blocks": 62}
    refused = {"reason": "EXCEEDS_POOL", "free_blocks": 62, "needed": "65", "retry_after": None}
    assert answer("allocate", 1, 65, expect=1) == {"refused": refused}
    assert answer("free", 2**64 - 1) == {"freed_blocks": 2}


def test_engines_do_not_meet(console: Console) -> None:
    console.out("allocate", 10, "--engine", "a")
    console.out("allocate", 10, "--engine", "b")
    assert console.out("table", 10, "--engine", "b").endswith("\n1\n")
    console.error("table", 10, expect=1)


def test_a_long_table_stays_on_one_line_off_the_terminal(console: Console) -> None:
    console.out("allocate", 10, 20_000, "--pool", "wide")
    _, numbers, end = console.out("table", 10, "--pool", "wide").split("\n")
    assert numbers.split() == [str(block) for block in range(20_000)]
    assert end == ""


def test_wrong_usage_is_exit_code_2(console: Console) -> None:
    for arguments, said in [
        (("allocate", 10, 0), "num_blocks: 0 must be at least 1"),
        (("allocate", 2**64), "sequence_id: 18446744073709551616 must be a whole number"),
        (("allocate", 10, "--pool", "no/name"), "pool: 'no/name' must be 1 to 128 characters"),
        (("allocate", 10, "--max-wait", "61"), "61.0 is more than max_wait_max = 60"),
        (("allocate", "ten"), "Invalid value for 'sequence_id': must be a valid integer"),
        (("allocate", 10, "--max-wait", "1_0"), "must be a valid number, '1_0' is none"),
        (("allocate",), "Missing argument"),
        (("allocate", 10, "--nope"), "No such option: --nope"),
        (("alocate", 10), "No such command 'alocate'"),
    ]:
        told = console.error(*arguments, expect=2)
        assert told.startswith("error: ")
        assert said in told
        assert len(told.splitlines()) <= 2
