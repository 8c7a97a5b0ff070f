"""Traces of all kinds that people have: what they are read as, and what is refused in which words.

The samples are made up; only their fields are those of the formats.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kvblock_replay.trace import EVIDENCE_LINES, LINE_BYTES_MAX, Trace, TraceError, read_trace
from kvblock_replay.units import REQUESTS_MIN, TimeUnit

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECONDS, MILLISECONDS = TimeUnit.SECONDS, TimeUnit.MILLISECONDS
BURSTGPT = (
    b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    b"5,ChatGPT,400,18,418,Conversation log\n"
    b"45.25,GPT-4,1000,0,1000,API log\n"
)
BURSTGPT_WITH_SESSIONS = (
    b"Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
    b"Log Type\n"
    b"1,s-1,2.5,ChatGPT,400,18,418,Conversation log\n"
    b"3,s-1,2.5,ChatGPT,1000,0,1000,Conversation log\n"
)
VIDUR = (
    b"arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,591,140\n0.028486639895327726,547,248\n"
)
BAILIAN = (
    b'{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 521,'
    b' "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1, 2]}\n'
    b'{"chat_id": 160, "parent_chat_id": 159, "timestamp": 63.5, "input_length": 700,'
    b' "output_length": 9, "type": "search", "turn": 2, "hash_ids": [1, 2]}\n'
)


def lines(arrivals: Iterable[float], **more: object) -> bytes:
    """JSON lines of requests that arrive then."""
    fields: dict[str, object] = {"input_length": 100, "output_length": 10, **more}
    return b"".join(
        json.dumps({"timestamp": arrival, **fields}).encode() + b"\n" for arrival in arrivals
    )


def spread(count: int, distance: float, start: float = 0) -> list[float]:
    return [round(start + index * distance, 3) for index in range(count)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Trace]:
    """Reads bytes as a trace; see `read_trace`."""

    def from_bytes(
        content: bytes, limit: int | None = None, time_unit: TimeUnit | None = None
    ) -> Trace:
        file = tmp_path / "trace"
        file.write_bytes(content)
        return read_trace(file, limit, time_unit)

    return from_bytes


@pytest.fixture
def refusal(read: Callable[..., Trace]) -> Callable[..., str]:
    """The words in which bytes are refused."""

    def of(content: bytes, limit: int | None = None, time_unit: TimeUnit | None = None) -> str:
        with pytest.raises(TraceError) as found:
            read(content, limit, time_unit)
        return str(found.value).partition("trace: ")[2]

    return of


@pytest.mark.parametrize(
    ("content", "format", "unit", "requests"),
    [
        (BURSTGPT, "burstgpt", SECONDS, [(0, 400, 18), (40_250_000_000, 1000, 0)]),
        (BURSTGPT_WITH_SESSIONS, "burstgpt", SECONDS, [(0, 400, 18), (2_000_000_000, 1000, 0)]),
        (VIDUR, "vidur", SECONDS, [(0, 591, 140), (28_486_639, 547, 248)]),
        (BAILIAN, "bailian", SECONDS, [(0, 521, 132), (2_386_000_000, 700, 9)]),
        (
            lines([0, 30], input_length=600, hash_ids=[4, 5], session_id="a"),
            "mooncake",
            MILLISECONDS,
            [(0, 600, 10), (30_000_000, 600, 10)],
        ),
    ],
)
def test_fields_that_tell_the_format_and_the_unit(
    read: Callable[..., Trace],
    content: bytes,
    format: str,
    unit: TimeUnit,
    requests: list[tuple[int, int, int]],
) -> None:
    trace = read(content)
    assert (trace.format, trace.time_unit) == (format, unit)
    assert [tuple(request) for request in trace.requests] == requests


@pytest.mark.parametrize("names", [("input_length", "output_length"), ("isl", "osl")])
def test_lengths_have_two_names(read: Callable[..., Trace], names: tuple[str, str]) -> None:
    row = {"timestamp": 0, names[0]: 7, names[1]: 3, "priority": 1}
    trace = read(json.dumps(row).encode())
    assert trace.format == "lengths"
    assert [tuple(request) for request in trace.requests] == [(0, 7, 3)]


@pytest.mark.parametrize(
    ("arrivals", "unit"),
    [
        # Moments since 1970 are certain however few they are.
        ([1_700_000_000, 1_700_000_002.5], SECONDS),
        ([1_700_000_000_000, 1_700_000_002_500], MILLISECONDS),
        # More than 1,000 requests a second, or less than one in ten minutes: the other one.
        (spread(REQUESTS_MIN, 0.25), SECONDS),
        (spread(REQUESTS_MIN, 1000), MILLISECONDS),
        # All at once.
        ([3, 3, 3], MILLISECONDS),
    ],
)
def test_numbers_that_tell_the_unit(
    read: Callable[..., Trace], arrivals: list[float], unit: TimeUnit
) -> None:
    trace = read(lines(arrivals))
    assert trace.time_unit is unit
    factor = 10**9 if unit is SECONDS else 10**6
    distance = round((arrivals[-1] - arrivals[0]) * factor)
    assert trace.requests[-1].arrival_ns == distance


@pytest.mark.parametrize(
    "arrivals",
    [
        [0, 1000],
        [5, 7],
        spread(REQUESTS_MIN - 1, 0.25),
        spread(REQUESTS_MIN, 1),
        spread(REQUESTS_MIN, 3.7),
        spread(REQUESTS_MIN, 600),
        [0, 1_700_000_000],
    ],
)
def test_numbers_that_do_not_tell_the_unit(
    refusal: Callable[..., str], read: Callable[..., Trace], arrivals: list[float]
) -> None:
    content = lines(arrivals)
    text = refusal(content)
    assert text.startswith("its timestamps may be seconds or milliseconds: ")
    assert text.endswith("say which with --time-unit s or --time-unit ms")
    in_seconds = read(content, time_unit=SECONDS).requests
    in_milliseconds = read(content, time_unit=MILLISECONDS).requests
    assert [one.arrival_ns for one in in_seconds] == [
        1000 * one.arrival_ns for one in in_milliseconds
    ]


def test_hashes_that_are_not_mooncakes_do_not_tell_the_unit(refusal: Callable[..., str]) -> None:
    assert "--time-unit" in refusal(lines([0, 30], input_length=600, hash_ids=[1]))
    # One hash fits every short prompt.
    assert "--time-unit" in refusal(lines([0, 30], input_length=600 // 2, hash_ids=[1]))
    mixed = lines([0], input_length=600, hash_ids=[1, 2]) + lines([9], input_length=600)
    assert "--time-unit" in refusal(mixed)


def test_what_the_user_says_counts_more_than_the_fields(read: Callable[..., Trace]) -> None:
    trace = read(BAILIAN, time_unit=MILLISECONDS)
    assert trace.requests[1].arrival_ns == 2_386_000
    assert trace.time_unit is MILLISECONDS


def test_the_unit_of_dates_is_not_to_be_said(refusal: Callable[..., str]) -> None:
    dated = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n"
    assert refusal(dated, time_unit=SECONDS) == (
        "its timestamps are dates: --time-unit is for numbers"
    )


def test_a_limit_does_not_hide_the_unit(read: Callable[..., Trace]) -> None:
    content = lines(spread(REQUESTS_MIN, 0.25))
    assert [one.arrival_ns for one in read(content, limit=2).requests] == [0, 250_000_000]
    # What is behind the limit may be broken: it is no request that was asked for.
    late = lines(spread(EVIDENCE_LINES + 5, 0.25)) + b"broken\n"
    assert len(read(late, limit=1).requests) == 1
    assert len(read(content + b"broken\n", limit=1).requests) == 1


def test_seconds_that_are_too_many(refusal: Callable[..., str]) -> None:
    text = refusal(lines([0, 9_000_000_000_000]), time_unit=SECONDS)
    assert text.startswith("a timestamp is 9000000000000 seconds: wanted at most 9000000000")


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("content", [BURSTGPT, VIDUR, BAILIAN])
def test_packed_traces(
    read: Callable[..., Trace], pack: Callable[[bytes], bytes], content: bytes
) -> None:
    assert read(pack(content)) == read(content)
    # Files that are put together stay readable.
    begin, row, *rest = content.splitlines(keepends=True)
    assert read(pack(begin) + pack(row + b"".join(rest))) == read(content)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_damaged_packed_traces(refusal: Callable[..., str], pack: Callable[[bytes], bytes]) -> None:
    packed = pack(lines(spread(5000, 1.5), chat_id=1))
    assert "the packed file is damaged here: " in refusal(packed[: len(packed) // 2])
    middle = len(packed) // 2
    garbled = packed[:middle] + bytes([packed[middle] ^ 0xFF]) * 50 + packed[middle + 50 :]
    assert refusal(garbled)
    bomb = pack(b"x" * (LINE_BYTES_MAX * 10))
    assert refusal(bomb) == f"line 1: is longer than {LINE_BYTES_MAX} bytes"


def test_zstandard_without_its_library(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zstd.compress(BURSTGPT)
    for name in ("compression", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    text = refusal(packed)
    assert text.startswith(
        "the file is packed with Zstandard, which needs the package backports.zstd: install kvblock"
        " with its extra zstd, or unpack the file first ("
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            BAILIAN.decode().encode("utf-16"),
            "the file is UTF-16: convert it with `iconv -f UTF-16 ",
        ),
        (BURSTGPT.decode().encode("utf-16-be"), "the file is UTF-16: convert it with `iconv"),
        (
            VIDUR.decode().encode("utf-16-le"),
            "the file is UTF-16: convert it with `iconv -f UTF-16",
        ),
        (BURSTGPT.decode().encode("utf-32"), "the file is UTF-32: convert it"),
        (b'[{"timestamp": 1}]', "line 1: begins a JSON array; wanted one object in each line"),
        (b"\n[\n", "line 2: begins a JSON array; wanted one object in each line, as `jq -c '.[]'`"),
        (b'{\n  "timestamp": 1\n}\n', "line 1: begins a JSON object that goes on in the next line"),
        (b'{"timestamp": 1,\n"isl": 1}', "line 1: begins a JSON object that goes on in the next"),
        (b'{"timestamp": 1, "isl": }', "line 1: is no JSON: "),
        (b'{"timestamp": 1, "osl": 1}', "line 1: has no field input_length"),
        (b'{"timestamp": 1, "isl": 1}', "line 1: has no field osl"),
        (b'{"isl": 1, "osl": 1}', "line 1: has no field timestamp"),
        (BURSTGPT.replace(b"\n", b"\r"), "line 1: has a carriage return in it; lines end with LF"),
        (b"a\r" * LINE_BYTES_MAX, "line 1: has a carriage return in it"),
        (b"BZh91AY&SY", "the file is packed with bzip2: unpack it first"),
        (b"\xfd7zXZ\x00\x00", "the file is packed with xz: unpack it first"),
        (b"PK\x03\x04", "the file is a ZIP archive: unpack it first"),
        (b"PAR1", "the file is Parquet: convert it"),
        (b"Timestamp,Model\n", "line 1: the header has no column Request tokens: "),
        (b"arrived_at\n", "line 1: the header has no column num_prefill_tokens: "),
        (
            BURSTGPT + b"x,GPT-4,1,1,2,API log\n",
            "line 4: Timestamp is 'x': wanted seconds or milliseconds from 0 to 9000000000000",
        ),
        (BURSTGPT + b"1_0,GPT-4,1,1,2,API log\n", "line 4: Timestamp is '1_0': wanted"),
        (BURSTGPT + b"-1,GPT-4,1,1,2,API log\n", "line 4: Timestamp is -1: wanted"),
        (BURSTGPT + b"1,GPT-4,1.5,1,2,API log\n", "line 4: Request tokens is 1.5: wanted a whole"),
        (VIDUR + b"nan,1,1\n", "line 4: arrived_at is 'nan': wanted"),
    ],
)
def test_words_for_what_is_not_read(
    refusal: Callable[..., str], content: bytes, words: str
) -> None:
    assert refusal(content).startswith(words)
