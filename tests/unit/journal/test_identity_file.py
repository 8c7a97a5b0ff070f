"""What identity.json may say, and that nothing else is taken for it."""

import json
from pathlib import Path

import pytest

from kvblock_service.journal.interface import JournalDamaged
from tests.unit.journal.directories import (
    HELD,
    closed,
    journal_of,
    opened,
    refused,
)


def test_another_bit_anywhere_in_the_identity_is_refused(state: Path) -> None:
    file = state / "identity.json"
    whole = file.read_bytes()
    told = []
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        try:
            found = opened(state)
        except JournalDamaged as error:
            told.append(str(error))
            continue
        # White space, for example.
        assert found.pools[0].pool.blocks.held == HELD
        closed(found)
    assert len(told) > len(whole) * 0.9
    assert {text.count("identity.json") for text in told} == {1}
    assert {text.count(f"kvblock journal set-aside {state}") for text in told} == {1}


@pytest.mark.parametrize("how", ["removed", "emptied", "a file", "elsewhere"])
def test_an_identity_whose_journal_is_not_there_is_refused(state: Path, how: str) -> None:
    journal = journal_of(state)
    aside = state.with_name("aside")
    journal.rename(aside)
    if how == "emptied":
        journal.mkdir()
    elif how == "a file":
        journal.touch()
    elif how == "elsewhere":
        journal.symlink_to(aside)
    assert f"kvblock journal set-aside {state}" in refused(state, str(journal))
    if how in ("emptied", "a file", "elsewhere"):
        journal.rmdir() if how == "emptied" else journal.unlink()
    aside.rename(journal)
    found = opened(state)
    assert found.pools[0].pool.blocks.held == HELD
    closed(found)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("server_epoch", str(2**70), "server_epoch is 11805916"),
        ("server_epoch", "-5", "server_epoch is -5; it is a whole number from 1"),
        ("server_epoch", "true", "server_epoch is True"),
        ("server_epoch", "1.5", "server_epoch is 1.5"),
        ("durability", '"hots"', "durability is 'hots'; it is process or host"),
        ("durability", "7", "durability is 7"),
        ("boot_id", '"a b"', "boot_id is 'a b'; it is 1 to 64 letters, digits and dashes"),
        ("boot_id", "null", "boot_id is None"),
        ("former", "[0]", r"former is \[0\]; it is a list of epochs"),
        ("former", '{"a": 1}', "former is {'a': 1}; it is a list of epochs"),
        ("format", "3", "has format 3"),
        ("format", '"1"', "has format '1'"),
        ("more", "1", "its fields are"),
    ],
)
def test_ranges_and_spellings_of_the_identity(
    tmp_path: Path, version: int, field: str, text: str, words: str
) -> None:
    closed(opened(tmp_path))
    file = tmp_path / "identity.json"
    content = {**json.loads(file.read_text()), "format": version, field: "@@"}
    content.pop("checksum", None)
    value = json.loads(text)
    if version > 1 and field != "format":
        from kvblock_service.journal.identity import _checksum

        content["checksum"] = _checksum({**content, field: value})
    file.write_text(json.dumps(content).replace('"@@"', text))
    with pytest.raises(JournalDamaged, match=words):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1', "7", '"x"', "\xff", ""])
def test_what_is_no_identity(tmp_path: Path, text: str) -> None:
    closed(opened(tmp_path))
    (tmp_path / "identity.json").write_text(text, encoding="latin-1")
    refused(tmp_path, "identity.json")
