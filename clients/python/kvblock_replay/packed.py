"""Files as people have them: plain, or packed with gzip or Zstandard.

Rules:
  - What a file is follows from its first bytes, never from its name.
  - It is unpacked while it is read, so that a line that is too long ends it early.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from typing import BinaryIO, NamedTuple, cast

from kvblock_replay.fields import BadLine

_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_NOT_READ = {
    b"BZh": "packed with bzip2: unpack it first",
    b"\xfd7zXZ\x00": "packed with xz: unpack it first",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"PAR1": "Parquet: convert it to JSON lines or CSV first",
    b"\xff\xfe\x00\x00": "UTF-32: convert it with `iconv -f UTF-32 -t UTF-8`",
    b"\xff\xfe": "UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`",
}
# Without its mark: every other byte is 0, since a trace begins with ASCII.
_UTF_16 = re.compile(rb"(?:[^\0]\0){4}|(?:\0[^\0]){4}")


class Unpacked(NamedTuple):
    """A file to read lines from, and the errors that say it is damaged."""

    file: BinaryIO
    damage: tuple[type[Exception], ...]


def unpacked(file: BinaryIO) -> Unpacked:
    """The content of a file that is at its beginning and can seek.

    Raises BadLine when it is of a kind that is not read, or its library is missing.
    """
    head = file.read(8)
    file.seek(0)
    for begin, words in _NOT_READ.items():
        if head.startswith(begin):
            raise BadLine(f"the file is {words}")
    if _UTF_16.match(head):
        name = "UTF-16BE" if head.startswith(b"\0") else "UTF-16LE"
        raise BadLine(f"the file is UTF-16: convert it with `iconv -f {name} -t UTF-8`")
    if head.startswith(_GZIP):
        plain = gzip.GzipFile(fileobj=file)
        return Unpacked(cast("BinaryIO", plain), (gzip.BadGzipFile, EOFError, zlib.error))
    if head.startswith(_ZSTANDARD):
        return _zstandard(file)
    return Unpacked(file, ())


def _zstandard(file: BinaryIO) -> Unpacked:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise BadLine(
            "the file is packed with Zstandard, which needs the package backports.zstd: install"
            f" kvblock with its extra zstd, or unpack the file first ({error})"
        ) from error
    return Unpacked(cast("BinaryIO", zstd.ZstdFile(file)), (zstd.ZstdError, EOFError))
