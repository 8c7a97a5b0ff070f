import json
from pathlib import Path

import pytest

from kvblock_replay.fields import TIMESTAMP_MAX, TOKENS_MAX
from kvblock_replay.trace import LINE_BYTES_MAX, Request, TraceError, read_trace
from kvblock_replay.units import TimeUnit

HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE = HEADER + b"2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
MOONCAKE = (
    b'{"timestamp": 5, "input_length": 1024, "output_length": 500, "hash_ids": [0, 1]}\n'
    b'{"timestamp": 7, "input_length": 1025, "output_length": 490, "hash_ids": [0, 1, 2]}\n'
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.dat"


def refusal(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(TraceError) as found:
        read_trace(file)
    text = str(found.value)
    assert text.startswith(f"{file}: ")
    return text.removeprefix(f"{file}: ")


def mooncake(**changes: object) -> bytes:
    fields = {"timestamp": 1, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
    fields |= changes
    return json.dumps(fields).encode() + b"\n"


def test_azure(file: Path) -> None:
    file.write_bytes(AZURE)
    trace = read_trace(file)
    assert trace.format == "azure"
    assert trace.requests == (Request(0, 4808, 10), Request(52_000_000, 3180, 8))


def test_mooncake(file: Path) -> None:
    file.write_bytes(MOONCAKE)
    trace = read_trace(file)
    assert trace.format == "mooncake"
    assert trace.requests == (Request(0, 1024, 500), Request(2_000_000, 1025, 490))


@pytest.mark.parametrize("name", ["trace.csv", "trace.jsonl", "noname"])
@pytest.mark.parametrize(("content", "format"), [(AZURE, "azure"), (MOONCAKE, "mooncake")])
def test_format_is_told_by_content(tmp_path: Path, name: str, content: bytes, format: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_trace(tmp_path / name).format == format


@pytest.mark.parametrize("content", [AZURE, MOONCAKE])
def test_byte_order_mark_crlf_blank_lines_and_no_last_line_feed(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    plain = read_trace(file)
    file.write_bytes(b"\xef\xbb\xbf\r\n" + content.rstrip().replace(b"\n", b"\r\n\r\n"))
    assert read_trace(file) == plain


@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [
        ("2024-05-10 00:00:00", 0),
        ("2024-05-10 00:00:00.5", 500_000_000),
        ("2024-05-10 00:00:00.009930+00:00", 9_930_000),
        ("2024-05-10 02:00:01+02:00", 1_000_000_000),
        ("2024-05-09 22:30:01-0130", 1_000_000_000),
        ("2024-05-10T00:00:00.123456789Z", 123_456_789),
        ("2024-05-11 00:00:00.0000001", 86_400_000_000_100),
    ],
)
def test_azure_timestamps(file: Path, stamp: str, nanoseconds: int) -> None:
    file.write_bytes(HEADER + b"2024-05-10 00:00:00,1,1\n" + f"{stamp},1,1\n".encode())
    assert read_trace(file).requests[1].arrival_ns == nanoseconds


def test_azure_columns_are_found_by_name(file: Path) -> None:
    file.write_bytes(
        b'NumImages,GeneratedTokens, TIMESTAMP ,ContextTokens\n3,"7",2024-10-21 00:00:00.1,0012\n'
    )
    assert read_trace(file).requests == (Request(0, 12, 7),)


def test_mooncake_fraction_of_a_millisecond(file: Path) -> None:
    file.write_bytes(mooncake(timestamp=0) + mooncake(timestamp=0.1) + mooncake(timestamp=1e3))
    assert [r.arrival_ns for r in read_trace(file).requests] == [0, 100_000, 1_000_000_000]


def test_requests_are_sorted_and_equal_ones_keep_their_order(file: Path) -> None:
    stamps = [30, 10, 30, 20, 10]
    file.write_bytes(
        b"".join(mooncake(timestamp=t, input_length=609 - i) for i, t in enumerate(stamps))
    )
    assert [(r.arrival_ns, r.prompt_tokens) for r in read_trace(file).requests] == [
        (0, 608),
        (0, 605),
        (10_000_000, 606),
        (20_000_000, 609),
        (20_000_000, 607),
    ]


def test_limit_takes_the_first_lines_and_reads_no_further(file: Path) -> None:
    file.write_bytes(mooncake(timestamp=9) + mooncake(timestamp=8) + b"broken\n")
    assert len(read_trace(file, limit=2).requests) == 2


def test_zero_tokens_and_the_largest_are_legal(file: Path) -> None:
    file.write_bytes(
        mooncake(input_length=0, output_length=0, timestamp=TIMESTAMP_MAX)
        + mooncake(input_length=TOKENS_MAX, output_length=TOKENS_MAX, timestamp=0)
    )
    found = read_trace(file, time_unit=TimeUnit.MILLISECONDS)
    assert [r[1:] for r in found.requests] == [(TOKENS_MAX, TOKENS_MAX), (0, 0)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"2023-11-16 18:17:03,1", "has 2 fields, the header 3: '2023-11-16 18:17:03,1'"),
        (b"2023-11-16 18:17:03,1,2,3", "has 4 fields, the header 3"),
        (b"2023-11-16 18:17:03,x,2", "ContextTokens is 'x': wanted a whole number from 0 to"),
        (b"2023-11-16 18:17:03,-4,2", "ContextTokens is -4: wanted a whole number from 0 to"),
        (b"2023-11-16 18:17:03,1.5,2", "ContextTokens is 1.5: wanted"),
        (b"2023-11-16 18:17:03,,2", "ContextTokens is '': wanted"),
        (b"2023-11-16 18:17:03,1,nan", "GeneratedTokens is 'nan': wanted"),
        (b"2023-11-16 18:17:03,1,10000001", "GeneratedTokens is 10000001: wanted"),
        (b"2023-11-16 18:17:03,1," + b"9" * 9999, "GeneratedTokens is '9999999999"),
        ("2023-11-16 18:17:03,1,٣".encode(), "GeneratedTokens is '٣': wanted"),
        (b"yesterday,1,2", "TIMESTAMP is 'yesterday': wanted a time such as"),
        (b"2023-02-30 18:17:03,1,2", "TIMESTAMP is '2023-02-30 18:17:03': day"),
        (b"2023-11-16 25:17:03,1,2", "TIMESTAMP is '2023-11-16 25:17:03': hour must be in"),
        (b"2023-11-16 18:17:03+77:00,1,2", "TIMESTAMP is '2023-11-16 18:17:03+77:00': wanted"),
        (b'"2023-11-16 18:17:03,1,2', "is no CSV: unexpected end of data"),
        (b"2023-11-16 18:17:03,1,\xff\xfe", r"is not UTF-8 from b'\xff\xfe\n' on"),
    ],
)
def test_broken_azure_line(file: Path, line: bytes, problem: str) -> None:
    assert refusal(file, AZURE + b"\n" + line + b"\n").startswith(f"line 5: {problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"nonsense", "is no JSON: Expecting value: line 1 column 1 (char 0): 'nonsense'"),
        (b'{"timestamp": 1', "is no JSON: "),
        (b"[1, 2, 3]", "is no JSON object: '[1, 2, 3]'"),
        (b"[" * 100_000, "is no JSON: "),
        (b'{"timestamp": 1, "input_length": 1}', "has no field output_length"),
        (mooncake(input_length=None), "input_length is None: wanted a whole number from 0 to"),
        (mooncake(input_length=True), "input_length is True: wanted"),
        (mooncake(input_length="7"), "input_length is '7': wanted"),
        (mooncake(input_length=7.5), "input_length is 7.5: wanted"),
        (mooncake(output_length=-1), "output_length is -1: wanted"),
        (mooncake(output_length=float("nan")), "output_length is NaN: wanted"),
        (
            mooncake(timestamp=float("inf")),
            "timestamp is Infinity: wanted seconds",
        ),
        (mooncake(timestamp=float("nan")), "timestamp is NaN: wanted"),
        (mooncake(timestamp=-1), "timestamp is -1: wanted"),
        (mooncake(timestamp="1"), "timestamp is '1': wanted"),
        (mooncake(timestamp=TIMESTAMP_MAX + 1), "timestamp is 9000000000001: wanted"),
        (mooncake(timestamp=0).replace(b"0", b"1e999999999", 1), "timestamp is 1e999999999: "),
        (mooncake(timestamp=0).replace(b"0", b"1e" + b"9" * 30, 1), "timestamp is 1e9999"),
        (mooncake(timestamp=0).replace(b"0", b"1" * 5000, 1), "timestamp is '1111"),
        (mooncake(hash_ids="abc"), "hash_ids is 'abc': wanted an array"),
    ],
)
def test_broken_mooncake_line(file: Path, line: bytes, problem: str) -> None:
    found = refusal(file, MOONCAKE + line + b"\n")
    assert found.startswith(f"line 3: {problem}")
    assert len(found) < 300


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty: it holds no requests"),
        (b"\n \r\n", "the file is empty: it holds no requests"),
        (HEADER, "the file holds a header but no requests"),
        (b"2023-11-16 18:17:03.9,4808,10\n", "line 1: '2023-11-16 18:17:03.9,4808,10' begins no"),
        (b"\n\x00\x01\x02", "line 2: '\\x00\\x01\\x02' begins no trace: wanted the header TIME"),
        (b"TIMESTAMP,ContextTokens\n", "line 1: the header has no column GeneratedTokens"),
        (HEADER.strip() + b",ContextTokens\n", "line 1: the header names ContextTokens twice"),
        (b"x" * (LINE_BYTES_MAX + 1), f"line 1: is longer than {LINE_BYTES_MAX} bytes"),
    ],
)
def test_no_trace(file: Path, content: bytes, problem: str) -> None:
    assert refusal(file, content).startswith(problem)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere: No such file or directory$"):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(TraceError, match=r"Is a directory$"):
        read_trace(tmp_path)
