"""What the log looks like, seen from outside: each case is a program of its own."""

import json
import os
import pty
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

from tests.integration.spawned import LAST_RESORT
from tests.pipes import small_pipe

SET_UP = """
import logging, sys
from kvblock_service import logging_setup
logging_setup.configure(log_format={!r}, log_level={!r})
log = logging.getLogger("kvblock")
"""


def logged(body: str, log_format: str = "json", log_level: str = "info") -> str:
    program = SET_UP.format(log_format, log_level) + body
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.stderr


def events(body: str, log_level: str = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(body, "auto", log_level).splitlines()]


def on_a_terminal(body: str, **variables: str) -> str:
    ours, theirs = pty.openpty()
    program = SET_UP.format("auto", "info") + body
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-c", program], stderr=theirs, env=environment | variables, check=True
    )
    os.close(theirs)
    written = os.read(ours, 65_536).decode()
    os.close(ours)
    return written


def test_an_event_is_one_line_of_json_where_there_is_no_terminal() -> None:
    (event,) = events('log.info("pool %s", "main", extra={"total_blocks": 8})')
    assert list(event) == ["timestamp", "level", "event", "logger", "total_blocks"]
    assert datetime.fromisoformat(event.pop("timestamp")).utcoffset() == timedelta(0)
    assert event == {
        "level": "info",
        "event": "pool main",
        "logger": "kvblock",
        "total_blocks": 8,
    }


def test_other_libraries_and_warnings_go_the_same_way() -> None:
    first, second = events(
        'import warnings; logging.getLogger("grpc").error("lost");'
        'warnings.simplefilter("default"); warnings.warn("careful")'
    )
    assert (first["logger"], first["event"]) == ("grpc", "lost")
    assert (second["logger"], second["level"]) == ("py.warnings", "warning")
    assert "careful" in second["event"]


def test_only_the_level_and_what_is_above_it_is_shown() -> None:
    body = 'log.debug("a"); log.info("b"); log.warning("c"); log.error("d")'
    assert [event["event"] for event in events(body, "warning")] == ["c", "d"]
    assert [event["event"] for event in events(body, "debug")] == ["a", "b", "c", "d"]


def test_events_inside_a_span_name_it() -> None:
    inside, outside = events("""
from opentelemetry import trace
context = trace.SpanContext(0xABC, 0x12, is_remote=False)
with trace.use_span(trace.NonRecordingSpan(context)):
    log.info("inside")
log.info("outside")
""")
    assert inside["trace_id"] == f"{0xABC:032x}"
    assert inside["span_id"] == f"{0x12:016x}"
    assert "trace_id" not in outside


def test_what_nobody_caught_is_one_event() -> None:
    in_thread, at_the_end = events("""
import threading
def fail(): raise ValueError("first\\nline")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
fail()
""")
    assert in_thread["thread_name"] == "worker"
    for event in (in_thread, at_the_end):
        assert (event["level"], event["event"]) == ("critical", "uncaught exception")
        assert event["exception"].startswith("Traceback")
        assert event["exception"].endswith("ValueError: first\nline")


def test_what_a_library_prints_of_an_exception_is_an_event() -> None:
    (event,) = events("""
import traceback
try: 1 / 0
except ZeroDivisionError: traceback.print_exc()
""")
    assert (event["level"], event["event"]) == ("error", "a library has printed an exception")
    assert event["exception"].endswith("ZeroDivisionError: division by zero")


def test_what_cannot_be_raised_is_an_event() -> None:
    (event,) = events("""
class Fails:
    def __del__(self): raise ValueError("too late")
Fails()
""")
    assert (event["level"], event["event"]) == ("error", "an exception that cannot be raised")
    assert event["in"] == "Fails.__del__"
    assert event["exception"].endswith("ValueError: too late")


def test_what_is_written_to_stderr_keeps_its_place_among_the_events() -> None:
    written = logged('log.info("a"); print("b", file=sys.stderr); log.info("c")')
    first, second, third = written.splitlines()
    assert (json.loads(first)["event"], second, json.loads(third)["event"]) == ("a", "b", "c")


def test_events_of_the_interpreter_s_end_are_written() -> None:
    ended, late = events("""
import atexit
class Fails:
    def __del__(self): raise ValueError("too late")
kept = Fails()
kept.itself = kept
atexit.register(log.info, "at exit")
""")
    assert ended["event"] == "at exit"
    assert late["event"] == "an exception that cannot be raised"


def test_a_full_stderr_neither_delays_the_end_nor_changes_the_exit_code() -> None:
    program = SET_UP.format("json", "info") + 'log.error("lost"); sys.exit(7)'
    with small_pipe() as pipe:
        pipe.fill()
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=pipe.writes, timeout=LAST_RESORT, check=False
        )
    assert done.returncode == 7


def test_a_defect_that_logs_like_bytes_from_outside_stays() -> None:
    (event,) = events("""
grpc = logging.getLogger("grpc._cython.cygrpc")
try: b"\\xff".decode()
except UnicodeDecodeError: grpc.exception("Unexpected [%s] raised by servicer method", "x")
""")
    assert event["event"] == "Unexpected [x] raised by servicer method"
    assert "UnicodeDecodeError" in event["exception"]


def test_text_has_no_colours_where_there_is_no_terminal() -> None:
    (line,) = logged('log.info("ready", extra={"port": 1})', "text").splitlines()
    assert "ready" in line
    assert "port=1" in line
    assert "\x1b" not in line


def test_a_terminal_gets_text_with_colours_unless_they_are_unwanted() -> None:
    body = 'log.info("ready", extra={"port": 1})'
    assert "\x1b[" in on_a_terminal(body)
    plain = on_a_terminal(body, NO_COLOR="1")
    assert "\x1b" not in plain
    assert "ready" in plain
    assert "port=1" in plain
