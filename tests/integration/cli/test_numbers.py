"""Numbers are written in plain digits, in every option of every command."""

import inspect
import typing

import pytest
import typer

from tests.integration.cli.every_command import LOCAL, TALKS, Here, commands

BAD = ["1_0", " 1", "1 ", "\u0661", "0x10", "1e1_0", "", "+", "9" * 5000]
EXAMPLES = TALKS | LOCAL


def numbers_of(command: str) -> typing.Iterator[tuple[str, bool]]:
    """The options (empty: an argument) of a command that are numbers, and whether whole ones."""
    for one in inspect.signature(commands()[command]).parameters.values():
        kind, *rest = typing.get_args(one.annotation) or (None,)
        leaves = {kind, *typing.get_args(kind)}
        whole = bool({int, list[int]} & leaves)
        if whole or float in leaves:
            (info,) = (one for one in rest if hasattr(one, "param_decls"))
            # In an annotation the first name stands where a default would.
            told = [info.default, *(info.param_decls or ())]
            names = [name for name in told if str(name).startswith("--")]
            is_option = isinstance(info, typer.models.OptionInfo)
            name = names[0] if names else f"--{one.name.replace('_', '-')}"
            yield (name if is_option else ""), whole


def test_there_are_numbers_to_look_at() -> None:
    found = [number for command in EXAMPLES for number in numbers_of(command)]
    assert len(found) > 30
    assert {"--epoch", "--block", "--limit", "--engines", "--timeout", ""} <= dict(found).keys()


@pytest.mark.parametrize("command", EXAMPLES)
def test_no_number_is_anything_but_digits(command: str, here: Here) -> None:
    for option, whole in numbers_of(command):
        for bad in BAD:
            if not whole and bad == BAD[-1]:
                continue  # A large number of seconds is a number; what it means is judged later.
            if option:
                typed = [*EXAMPLES[command], f"{option}={bad}"]
            else:
                right = next((word for word in EXAMPLES[command] if word.isdigit()), None)
                typed = [bad if word == right else word for word in EXAMPLES[command] or [bad]]
            done = here.run(command, *typed, *address_of(command))
            told = f"must be a valid {'integer' if whole else 'number'}"
            assert (done.code, done.out) == (2, ""), (command, option, bad, done)
            assert told in done.err, (command, option, bad, done)


def test_a_number_beyond_its_bounds(here: Here) -> None:
    for typed, told in (
        (("--epoch", "-1"), "-1 must be at least 0"),
        (("--epoch", str(2**64)), f"{2**64} must be at most 18446744073709551615"),
    ):
        done = here.run("reclaim", "a", "--yes", *typed)
        assert done.code == 2
        assert told in done.err


def address_of(command: str) -> list[str]:
    return ["--address", "unix:/nowhere.sock"] if command in TALKS else []
