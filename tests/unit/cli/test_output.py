"""What is printed: escaped, cut, and as JSON."""

import json
import sys
from collections.abc import Iterator

import pytest

from kvblock import EngineStats, RefusalReason
from kvblock_cli import output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("engine-0", "engine-0"),
        ("two words, \u540d", "two words, \u540d"),
        ("\x1b[2J\x9b\x7f", r"\x1b[2J\x9b\x7f"),
        ("a\n\t\u2028\u202e", r"a\n\t\u2028\u202e"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_does_something_to_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert output.printable(text) == shown
    assert json.loads(output.json_text(text)) == text
    assert output.json_text(text).isprintable()


def test_what_is_kept() -> None:
    assert output.printable("a\nb\r", keep="\n") == "a\nb" + r"\r"


def test_a_name_is_cut_to_its_column() -> None:
    assert output.cut("engine-0", None) == "engine-0"
    assert output.cut("engine-0", 8) == "engine-0"
    assert output.cut("engine-0", 7) == "engine\u2026"
    assert output.cut("\u540d\u524d\u540d", 5) == "\u540d\u524d\u2026"


def test_fields_of_64_bits_are_strings() -> None:
    stats = EngineStats("a", 2, 2**64 - 1, True, 7, 1.5)
    assert output.plain(stats) == {
        "engine": "a",
        "held_blocks": 2,
        "sequences": "18446744073709551615",
        "attached": True,
        "epoch": "7",
        "lease_expires_in": 1.5,
        "acquired_blocks": 0,
        "want_blocks": "0",
        "idle_blocks": 0,
        "owed_blocks": 0,
    }
    assert output.plain({"free_ids": [1, 2], "reason": RefusalReason.EXCEEDS_POOL}) == {
        "free_ids": ["1", "2"],
        "reason": "EXCEEDS_POOL",
    }
    assert output.plain(output.plain(stats)) == output.plain(stats)


def test_a_listing_that_breaks_off_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[object]:
        yield {"block_number": 0}
        yield {"block_number": 1}
        raise ConnectionError

    with pytest.raises(ConnectionError):
        output.print_json_rows("blocks", rows())
    output.print_json_error({"reason": "UNAVAILABLE", "exit_code": 3})
    assert json.loads(capsys.readouterr().out) == {
        "blocks": [{"block_number": 0}, {"block_number": 1}],
        "reason": "UNAVAILABLE",
        "exit_code": 3,
    }
    output.print_json_error({"exit_code": 1})
    assert json.loads(capsys.readouterr().out) == {"exit_code": 1}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["stats", "--json"], True),
        (["table", "--json", "--", "-1"], True),
        (["table", "--", "--json"], False),
        (["stats"], False),
    ],
)
def test_json_is_asked_for_by_an_option(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], wanted: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["kvblock", *arguments])
    assert output.json_wanted() is wanted
