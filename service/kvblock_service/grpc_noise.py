"""Keeps out of the log what gRPC says of callers that send no text, or are gone.

For each header and method name that is not UTF-8, and for each call whose caller went away before
an error could be sent, gRPC logs its own traceback, and prints another one. It shows the header,
which may be a token, and anybody who reaches a listener can cause as many as he likes.

Rules:
- What was sent is never logged. The call gets its answer from what gRPC makes of the bytes.
- An exception that passed through any code but gRPC's own is somebody's defect, and stays.
"""

import logging
import traceback
from enum import Enum

from kvblock_service.event_counter import EventCounter


class _Noise(Enum):
    NO_TEXT = "a header or a method name is not UTF-8"
    GONE = "the caller was gone before its error was sent"


# By name: the logs must not depend on gRPC.
_KINDS = {"UnicodeDecodeError": _Noise.NO_TEXT, "ExecuteBatchError": _Noise.GONE}


class GrpcNoiseFilter(logging.Filter):
    """For a handler: in place of gRPC's lines, at most one a second that tells how many."""

    def __init__(self) -> None:
        super().__init__()
        logger = logging.getLogger(__name__)
        self._counter = EventCounter(logger, "a call that gRPC cannot serve", _Noise)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged as it is."""
        if not record.exc_info:
            return True
        _, error, trace = record.exc_info
        kind = _KINDS.get(type(error).__name__)
        frames = traceback.extract_tb(trace)
        if kind is None or not frames or any("grpc/_cython" not in one.filename for one in frames):
            return True
        self._counter.add(kind)
        return False
