"""What an access file may say, and what is said about one that is wrong."""

import hashlib
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvblock_service.access import (
    LOCAL_OPERATOR,
    AccessError,
    Identity,
    Reloaded,
    access_file,
    digest_of,
)

LONG = "0123456789abcdef"
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


def identity(entries: str, name: str = "a", token: str = LONG) -> str:
    return f'[[identity]]\nname = "{name}"\ntoken = "{token}"\n{entries}\n'


def test_everything_that_can_be_said(path: Path) -> None:
    known = access_file(write(path, FULL)).value
    digests = tuple(digest_of(token) for token in (LONG, f"{LONG}0", "third"))
    certificates = ("a-*", "spiffe://a/*")
    a = Identity("a", digests, certificates, ("a-*",), ("gpu?", "x"), True, 10.0)
    assert known.identities == (a, Identity("b"))
    assert known.unix == Identity("b")


def test_unix(path: Path) -> None:
    assert access_file(write(path, "")).value.unix is LOCAL_OPERATOR
    assert access_file(write(path, 'unix = "trusted"')).value.unix is LOCAL_OPERATOR
    assert access_file(write(path, 'unix = "token"')).value.unix is None


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
    assert said in problem(path, text)


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
    told = problem(path, f'[[identity]]\nname = "a"\n{line}\n')
    for secret in ("2short", "in it", "secret", "12345", f"'{LONG}"):
        assert secret not in told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    key=st.sampled_from(["name", "token", "token_sha256", "certificate", "engines", "admin"]),
    value=st.sampled_from(["1", "1.5", "[]", "[[]]", "{}", "true", "1979-05-27", '""', '["", 1]']),
)
def test_any_value_is_judged_in_plain_words(tmp_path: Path, key: str, value: str) -> None:
    entry = {"name": '"a"', "token": f'"{LONG}"'} | {key: value}
    lines = "".join(f"{name} = {text}\n" for name, text in entry.items())
    told = ""
    try:
        access_file(write(tmp_path / "x.toml", f"[[identity]]\n{lines}"))
    except AccessError as error:
        told = str(error)
    for jargon in ("Input should", "Value error", "pydantic", "dictionary", "None"):
        assert jargon not in told


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666])
def test_others_must_have_no_access(path: Path, mode: int) -> None:
    write(path, "").chmod(mode)
    with pytest.raises(AccessError, match=f"has mode {mode:04o}, with which others could read"):
        access_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_group_may_read_it(path: Path, mode: int) -> None:
    write(path, "").chmod(mode)
    access_file(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(AccessError, match="No such file or directory"):
        access_file(path)
    path.mkdir(mode=0o700)
    with pytest.raises(AccessError, match="Is a directory"):
        access_file(path)


class Counted:
    """A file whose readings are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readings = 0

    def read(self) -> str:
        self.readings += 1
        text = self.path.read_text()
        if text == "broken":
            raise AccessError("it is broken")
        return text


def test_a_file_is_read_when_it_has_changed_and_only_then(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = Counted(write(path, "one"))
    reloaded = Reloaded([path], file.read)
    assert [reloaded.refresh() for _ in range(3)] == ["one"] * 3
    assert file.readings == 1
    write(path, "three")
    assert [reloaded.refresh() for _ in range(3)] == ["three"] * 3
    assert file.readings == 2
    # The same size and the same time, but another file.
    other = write(path.with_name("other"), "seven")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)
    assert reloaded.refresh() == "seven"
    write(path, "broken")
    assert [reloaded.refresh() for _ in range(3)] == ["seven"] * 3
    assert file.readings == 4
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.problem for one in errors] == ["it is broken"]  # type: ignore[attr-defined]
    write(path, "mended")
    assert reloaded.refresh() == "mended"


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    link = tmp_path / "link"
    link.symlink_to("a")
    file = Counted(link / "file")
    reloaded = Reloaded([file.path], file.read)
    new = tmp_path / "new"
    new.symlink_to("b")
    new.replace(link)
    assert reloaded.refresh() == "b"
