"""Keeps out of the log what gRPC says of bytes from outside that are no text.

gRPC logs each such header and method name at level error, whole, with its own traceback. A header
may be a token, and anybody who reaches a listener can send as many as he likes.

Rules:
- What was sent is never logged. The call gets its answer from what gRPC makes of the bytes.
- An exception that passed through any code but gRPC's own is somebody's defect, and stays.
"""

import logging
import traceback
from enum import Enum

from kvblock_service.tally import Tally

_GRPC = "grpc._cython.cygrpc"
_BYTES_ARE_SHOWN = "Invalid encoding on "


class _Undecodable(Enum):
    TEXT = "a header or a method name is not UTF-8"


class UndecodableFilter(logging.Filter):
    """For a handler: in place of gRPC's lines, at most one a second that tells how many."""

    def __init__(self) -> None:
        super().__init__()
        self._tally = Tally(logging.getLogger(__name__), "malformed call", _Undecodable)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged as it is."""
        if record.name != _GRPC or not record.exc_info:
            return True
        _, error, trace = record.exc_info
        if not isinstance(error, UnicodeDecodeError):
            return True
        if record.msg.startswith(_BYTES_ARE_SHOWN):
            self._tally.add(_Undecodable.TEXT)
            return False
        return any("grpc/_cython" not in frame.filename for frame in traceback.extract_tb(trace))
