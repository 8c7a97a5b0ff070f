"""How an error names the value that was wrong."""

from pathlib import Path

import pytest

from kvblock import Tls
from kvblock.arguments import as_written, invalid


class Nameless:
    """Has the repr that every object has."""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", r"'a\nb'"),
        (None, "None"),
        (-1, "-1"),
        ([1, "a"], "[1, 'a']"),
        (Path("/etc/ca.pem"), "'/etc/ca.pem'"),
        (Tls(ca=Path("ca.pem"), server_name="a"), "Tls(ca='ca.pem', server_name='a')"),
        (Nameless(), "(a value of type Nameless)"),
        ([Nameless()], "(a value of type list)"),
        (lambda: None, "(a value of type function)"),
    ],
)
def test_a_value_is_shown_as_it_was_written(value: object, shown: str) -> None:
    assert as_written(value) == shown
    assert invalid("field", value, "is wrong").metadata["value"] == shown
