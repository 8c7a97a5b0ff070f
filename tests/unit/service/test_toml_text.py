"""TOML that is no TOML, or deeper than anything a server reads."""

import pytest

from kvblock_service.config.toml_text import NESTING_MAX, toml_table

DEEP = f"lists and tables are nested deeper than {NESTING_MAX}"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 100_000 + "]" * 100_000,
        "a = " + "{a = " * 100_000,
        "[" * 100_000,
        "a" + ".a" * 2_000 + " = 1",
        "[a" + ".a" * 2_000 + "]",
    ],
    ids=["lists", "closed lists", "tables", "headers", "dotted key", "dotted header"],
)
def test_nesting_without_end_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=f"^(no valid TOML: |{DEEP}$)"):
        toml_table(text.encode())


def test_how_deep_it_may_be() -> None:
    def nested(depth: int) -> bytes:
        return ("a = " + "[" * (depth - 1) + "]" * (depth - 1)).encode()

    assert toml_table(nested(NESTING_MAX))
    with pytest.raises(ValueError, match=DEEP):
        toml_table(nested(NESTING_MAX + 1))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = secret", b"a = " + b"1" * 5000, b"\0"])
def test_what_is_no_toml_is_told_without_its_content(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no valid TOML: ") as caught:
        toml_table(content)
    assert "secret" not in str(caught.value)
