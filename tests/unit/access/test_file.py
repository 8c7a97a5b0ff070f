"""What an access file may say, and what is said about one that is wrong."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvblock_service.access import (
    LOCAL_OPERATOR,
    AccessError,
    Identity,
    access_file,
    digest_of,
)
from tests.examples import examples

LONG = "0123456789abcdef"
UNIX = 'unix = "token"\n'
END = "\n[end]\n"
FULL = f"""\
unix = "b"

[[identity]]
name = "a"
token = ["{LONG}", "{LONG}0"]
token_sha256 = "{hashlib.sha256(b"third").hexdigest().upper()}"
certificate = ["a-*", "spiffe://a/*"]
engines = "a-*"
pools = ["gpu?", "x"]
admin = true
calls_per_second = 10
[[identity]]
name = "b"

[end]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.toml"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def problem(path: Path, text: str) -> str:
    with pytest.raises(AccessError) as caught:
        access_file(write(path, text))
    told = str(caught.value)
    assert told.startswith(f"access_file {path}: ")
    return told.removeprefix(f"access_file {path}: ")


def identity(entries: str = "", name: str = "a", token: str = LONG) -> str:
    return f'[[identity]]\nname = "{name}"\ntoken = "{token}"\n{entries}\n'


def whole(text: str) -> str:
    """A file with this in it that is not cut short."""
    return f"{'' if 'unix' in text else UNIX}{text}{END}"


def test_everything_that_can_be_said(path: Path) -> None:
    known = access_file(write(path, FULL)).value
    digests = tuple(digest_of(token) for token in (LONG, f"{LONG}0", "third"))
    certificates = ("a-*", "spiffe://a/*")
    a = Identity("a", digests, certificates, ("a-*",), ("gpu?", "x"), True, 10.0)
    assert known.identities == (a, Identity("b"))
    assert known.unix == Identity("b")


def test_unix(path: Path) -> None:
    for unix, meant in (("trusted", LOCAL_OPERATOR), ("token", None)):
        known = access_file(write(path, f'unix = "{unix}"\n{identity()}[end]')).value
        assert known.unix is meant
    assert problem(path, identity() + END) == (
        "unix: is not given; must be trusted, token or the name of an identity"
    )


def test_a_file_without_identities_is_none(path: Path) -> None:
    for unix in ("token", "trusted"):
        told = problem(path, f'unix = "{unix}"{END}')
        assert told == "there is no [[identity]]; give at least one"


NOT_WHOLE = (
    "does not end with the line [end], so it may have been cut short; if it was not, add that line"
    " below everything else"
)


@pytest.mark.parametrize(
    "text",
    ["", "\n", FULL.replace("[end]", ""), FULL + "# more", FULL + identity(), f"{FULL}x = 1\n"],
)
def test_a_file_that_does_not_end_as_a_whole_one_does(path: Path, text: str) -> None:
    assert problem(path, text) == NOT_WHOLE


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_cut_is_refused_or_means_the_same(path: Path, newline: str) -> None:
    text = FULL.replace("\n", newline).encode()
    meant = access_file(write(path, FULL)).value
    taken = []
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        with contextlib.suppress(AccessError):
            assert access_file(path).value == meant
            taken.append(length)
    # The line break at the very end is all that may be missing, and no half of one.
    assert taken == [len(text.rstrip()), len(text)]


@pytest.mark.parametrize(
    "text", ['x = """\n[end]', "x = [\n[end]", "[end]\n[end]", "[end.x]\n[end]"]
)
def test_an_end_that_is_none(path: Path, text: str) -> None:
    assert problem(path, UNIX + identity() + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('unix = "c"', "unix = 'c' must be trusted, token or the name of an identity"),
        ("unix = 1", "unix = 1: must be a text"),
        ("identity = 1", "identity: must be tables, [[identity]]"),
        ("identity = [1]", "identity[0]: must be a table"),
        ("identities = []", "identities: no such key"),
        (identity("colour = 1"), "identity[0].colour: no such key"),
        ('[[identity]]\ntoken = "x"', "identity[0].name: is not given"),
        ('[[identity]]\nname = "a"', "identity a has neither token, token_sha256 nor certificate"),
        (identity("", name="a b"), "identity[0].name = 'a b': must be 1 to 128 characters"),
        (identity("", name="token"), "identity[0].name = 'token': must not be trusted or token"),
        (identity("") + identity("", token=f"{LONG}1"), "there are two identities a"),
        (identity("") + identity("", name="b"), "identities a and b have the same token"),
        (identity('engines = [""]'), "identity[0].engines = ['']: must be patterns of 1 to 128"),
        (identity("engines = [1]"), "identity[0].engines = [1]: must be a text or a list of texts"),
        (identity('pools = "a b"'), "identity[0].pools = 'a b': must be patterns of 1 to 128"),
        (identity('certificate = ""'), "identity[0].certificate = '': must not be empty"),
        (identity('admin = "perhaps"'), "identity[0].admin = 'perhaps': must be true or false"),
        (identity("calls_per_second = 0"), "identity[0].calls_per_second = 0: must be a number"),
        (identity("calls_per_second = nan"), "identity[0].calls_per_second = nan: must be a numb"),
        (identity("calls_per_second = true"), "identity[0].calls_per_second = True: must be a num"),
    ],
)
def test_what_is_wrong_is_told(path: Path, text: str, said: str) -> None:
    assert said in problem(path, whole(text))


@pytest.mark.parametrize(
    "line",
    [
        'token = "2short"',
        'token = "with blank in it"',
        'token = ["0123456789abcdef", "2short"]',
        "token = 12345",
        'token_sha256 = "secret"',
        'token_sha256 = ["secret"]',
        'tokn = "secret"',
        'token = "secret',
        "token = secret",
    ],
)
def test_what_is_wrong_is_told_without_the_secret(path: Path, line: str) -> None:
    told = problem(path, whole(f'[[identity]]\nname = "a"\n{line}\n'))
    for secret in ("2short", "in it", "secret", "12345", f"'{LONG}"):
        assert secret not in told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
@given(
    key=st.sampled_from(["name", "token", "token_sha256", "certificate", "engines", "admin"]),
    value=st.sampled_from(["1", "1.5", "[]", "[[]]", "{}", "true", "1979-05-27", '""', '["", 1]']),
)
def test_any_value_is_judged_in_plain_words(tmp_path: Path, key: str, value: str) -> None:
    entry = {"name": '"a"', "token": f'"{LONG}"'} | {key: value}
    lines = "".join(f"{name} = {text}\n" for name, text in entry.items())
    told = ""
    try:
        access_file(write(tmp_path / "x.toml", whole(f"[[identity]]\n{lines}")))
    except AccessError as error:
        told = str(error)
    for jargon in ("Input should", "Value error", "pydantic", "dictionary", "None"):
        assert jargon not in told


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666])
def test_others_must_have_no_access(path: Path, mode: int) -> None:
    write(path, FULL).chmod(mode)
    with pytest.raises(AccessError, match=f"has mode {mode:04o}, with which others could read"):
        access_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_group_may_read_it(path: Path, mode: int) -> None:
    write(path, FULL).chmod(mode)
    access_file(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(AccessError, match="No such file or directory"):
        access_file(path)
    path.mkdir(mode=0o700)
    with pytest.raises(AccessError, match="is a directory; must be a regular file"):
        access_file(path)


@pytest.mark.parametrize(
    "nested", ["x = " + "[" * 100_000, "unix" + ".a" * 2_000 + " = 1"], ids=["lists", "dotted key"]
)
def test_nesting_without_end(path: Path, nested: str) -> None:
    assert "nested deeper than 16" in problem(path, f"{nested}{END}")
