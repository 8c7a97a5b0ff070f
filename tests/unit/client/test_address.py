"""Addresses and the gRPC targets that they mean."""

import os
from pathlib import Path

import pytest

from kvblock.address import SOCKET_PATH_BYTES_MAX, target_of
from kvblock.errors import ErrorReason, InvalidArgumentError


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("unix:/run/kvblock.sock", "unix:/run/kvblock.sock"),
        ("unix:///run/kvblock.sock", "unix:/run/kvblock.sock"),
        ("unix:/a b/50%#1?.sock", "unix:/a%20b/50%25%231%3F.sock"),
        ("unix:/ü.sock", "unix:/%C3%BC.sock"),
        ("localhost:50051", "dns:///localhost:50051"),
        ("127.0.0.1:1", "dns:///127.0.0.1:1"),
        ("[::1]:65535", "dns:///[::1]:65535"),
    ],
)
def test_forms(address: str, target: str) -> None:
    assert target_of(address) == target


def test_relative_path_is_fixed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert target_of("unix:kv.sock") == f"unix:{tmp_path}/kv.sock"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "unix:",
        "unix://run/kv.sock",
        "unix:/a\0b",
        "localhost",
        "localhost:",
        "localhost:x",
        ":50051",
        "localhost:0",
        "localhost:65536",
        "http://localhost:50051",
        "::1:50051",
        7,
    ],
)
def test_what_cannot_be_is_named(address: object) -> None:
    with pytest.raises(InvalidArgumentError, match="address: ") as caught:
        target_of(address)  # type: ignore[arg-type]
    assert caught.value.reason is ErrorReason.INVALID_FIELD
    assert caught.value.metadata["field"] == "address"
    assert caught.value.violations[0].field == "address"


def test_longest_path() -> None:
    longest = "/" + "x" * (SOCKET_PATH_BYTES_MAX - 1)
    assert target_of(f"unix:{longest}") == f"unix:{longest}"
    with pytest.raises(InvalidArgumentError, match=f"108 bytes.*at most {SOCKET_PATH_BYTES_MAX}"):
        target_of(f"unix:{longest}x")
    assert os.path.isabs(longest)
