"""Logs: one event a line, on stderr, from every library through one formatter.

Rules:
- Every event has `timestamp` (UTC, ISO 8601), `level`, `event` and `logger`; inside an
  OpenTelemetry span also `trace_id` and `span_id`, in hexadecimal as traces show them.
- What a caller passes as `extra` becomes keys of the event.
- What nobody caught is one event too, with the traceback under `exception`.
- What a library prints of an exception is an event like any other.
- Of libraries nothing below `info` is shown, whatever the level: gRPC's and asyncio's debug lines
  are about themselves, and would bury the server's.
- What gRPC says of callers that send no text or are gone is left to `grpc_noise`.
- Text is for people at a terminal, JSON for machines; `auto` tells by the stream.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import Processor

from kvblock_service.grpc_noise import GrpcNoiseFilter

_FIRST_KEYS = ("timestamp", "level", "event", "logger")
_OWN_LOGGERS = ("kvblock", "kvblock_service")
_log = logging.getLogger("kvblock")


def configure(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Send all logs to a stream (stderr by default), in place of where they went before.

    `log_format`: `text`, `json`, or `auto` (text on a terminal, JSON otherwise).
    `log_level`: the least level that is shown: `debug`, `info`, `warning` or `error`.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream.isatty()
    as_text = log_format == "text" or (log_format == "auto" and on_terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(as_text, colors=on_terminal and not os.environ.get("NO_COLOR")))
    handler.addFilter(GrpcNoiseFilter())
    level = log_level.upper()
    logging.basicConfig(handlers=[handler], level="INFO" if level == "DEBUG" else level, force=True)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    traceback.print_exc = _log_printed


def _formatter(as_text: bool, *, colors: bool) -> logging.Formatter:
    common: list[Processor] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_span,
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_text:
        plain = structlog.dev.plain_traceback
        last.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain))
    else:
        last += [
            structlog.processors.format_exc_info,
            _first_keys_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=last)


def _add_span(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _first_keys_first(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: event[key] for key in _FIRST_KEYS} | dict(event)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None and not issubclass(found.exc_type, SystemExit):
        thread = found.thread.name if found.thread else "unknown"
        _log.critical(
            "uncaught exception",
            exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
            extra={"thread_name": thread},
        )


def _log_printed(limit: int | None = None, file: object = None, chain: bool = True) -> None:
    """In place of `traceback.print_exc`."""
    del limit, file, chain
    _log.error("a library has printed an exception", exc_info=True)
