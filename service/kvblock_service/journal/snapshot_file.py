"""Snapshots as files: the pools as bytes, and what they are a snapshot of.

Rules:
- A file is: magic, version, server epoch, position, the chain checksum there, the length of the
  snapshot, the snapshot, and a checksum over all that.
- A file that begins with a snapshot itself was written before there was more to it. Its name says
  its position then, and its content stands for the chain checksum there.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal import chain, files, snapshot
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.regular import failing, read_regular, reading

_MAGIC = b"KVBP"
_VERSION = 1
_HEAD = struct.Struct("<4sBQQ4sQ")


class SnapshotFile(NamedTuple):
    """A snapshot: the state after the record at `position`; `chain`: the checksum there."""

    position: int
    chain: bytes
    data: bytes


def write_snapshot(
    directory: Path, server_epoch: int, found: SnapshotFile, *, synced: bool
) -> None:
    """Have the file of a snapshot appear, or raise JournalError; `synced`: it survives the host."""
    path = files.snapshot_path(directory, found.position)
    head = _HEAD.pack(_MAGIC, _VERSION, server_epoch, found.position, found.chain, len(found.data))
    body = head + found.data
    with failing("written", path):
        files.write_whole(path, body + chain.digest(body), synced=synced)


def read_snapshot(path: Path, server_epoch: int, position: int) -> SnapshotFile:
    """The snapshot that has this name, which says this position.

    Raises:
        JournalDamaged: it cannot be read, or is not what its name says.
        FileNotFoundError: it was removed meanwhile.

    """
    with reading(path):
        data = read_regular(path)
    if data.startswith(snapshot.MAGIC):
        whole = b"snapshot %d of %d: %b" % (position, server_epoch, data)
        return SnapshotFile(position, chain.digest(whole)[: chain.CHAIN_BYTES], data)
    if len(data) < _HEAD.size + chain.DIGEST_BYTES or not data.startswith(_MAGIC):
        raise JournalDamaged(f"{path} is no snapshot")
    body = data[: -chain.DIGEST_BYTES]
    _, version, epoch, inside, at, length = _HEAD.unpack_from(data)
    if chain.digest(body) != data[-chain.DIGEST_BYTES :] or length != len(body) - _HEAD.size:
        raise JournalDamaged(f"{path} is damaged: its checksum is wrong")
    if version != _VERSION:
        raise JournalDamaged(f"{path} has version {version}; this program reads version {_VERSION}")
    if (epoch, inside) != (server_epoch, position):
        raise JournalDamaged(
            f"{path} is a snapshot at position {inside} of server epoch {epoch}, and not the one at"
            f" position {position} of {server_epoch} that its name says: it was renamed or copied"
        )
    return SnapshotFile(position, at, body[_HEAD.size :])
