"""What a stream does when its reader reads, is late, or is gone."""

import os

from kvblock_service.log_stream import LogStream
from tests.pipes import Pipe, small_pipe


def told(dropped: int) -> str:
    return f"{dropped} dropped\n"


def stream_to(pipe: Pipe, pending_max: int = 100) -> LogStream:
    return LogStream(pipe.writes, told, pending_max)


def line(number: int) -> str:
    return f"line {number:014}\n"  # 20 characters


def lines(numbers: range) -> str:
    return "".join(map(line, numbers))


def test_everything_comes_in_order() -> None:
    with small_pipe() as pipe:
        stream = stream_to(pipe, 10_000_000)
        for number in range(10_000):
            stream.write(line(number))
        assert pipe.read(10_000 * 20) == lines(range(10_000))
        stream.end(60.0)
        assert stream.dropped == 0


def test_what_does_not_fit_is_dropped_and_told_in_its_place() -> None:
    with small_pipe() as pipe:
        pipe.fill()
        stream = stream_to(pipe)
        for number in range(12):
            assert stream.write(line(number)) == 20
        assert stream.dropped == 7
        pipe.drain()
        expected = lines(range(5)) + told(7)
        assert pipe.read(len(expected)) == expected
        stream.write(line(12))
        assert pipe.read(20) == line(12)
        stream.end(60.0)
        assert stream.dropped == 7


def test_nothing_is_taken_until_the_reader_has_caught_up() -> None:
    with small_pipe() as pipe:
        pipe.fill()
        stream = stream_to(pipe)
        stream.write("x" * 100)
        stream.write("lost")
        stream.write("")
        assert stream.dropped == 2
        # Its thread must not write to what has the number of this pipe next.
        pipe.drain()
        expected = "x" * 100 + told(2)
        assert pipe.read(len(expected)) == expected
        stream.end(60.0)


def test_a_text_that_is_longer_than_the_queue_is_dropped() -> None:
    with small_pipe() as pipe:
        stream = stream_to(pipe)
        stream.write("x" * 101)
        stream.write("kept\n")
        expected = "kept\n" + told(1)
        assert pipe.read(len(expected)) == expected
        stream.end(60.0)


def test_a_reader_that_is_gone_and_another_that_comes() -> None:
    with small_pipe() as gone, small_pipe() as pipe:
        os.close(gone.reads)
        stream = stream_to(gone)
        stream.write("lost\n")
        while stream.dropped == 0:  # the thread counts it
            os.sched_yield()
        os.dup2(pipe.writes, gone.writes)
        stream.write("kept\n")
        expected = "kept\n" + told(1)
        assert pipe.read(len(expected)) == expected
        stream.end(60.0)


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    with small_pipe() as pipe:
        os.set_blocking(pipe.writes, False)
        pipe.fill()
        stream = stream_to(pipe, 10_000)
        stream.write("x" * 10_000)
        pipe.drain()
        assert pipe.read(10_000) == "x" * 10_000
        stream.end(60.0)
        assert stream.dropped == 0


def test_the_end_waits_for_what_is_written_and_no_longer_than_it_is_told() -> None:
    with small_pipe() as pipe:
        pipe.fill()
        stream = stream_to(pipe)
        stream.write(line(0))
        stream.end(0.0)
        stream.end(3600.0)
        stream.write(line(1))
        assert stream.dropped == 1
        pipe.drain()
        expected = line(0) + told(1)
        assert pipe.read(len(expected)) == expected


def test_after_the_end_what_can_be_written_without_waiting_is() -> None:
    with small_pipe() as pipe:
        stream = stream_to(pipe)
        stream.write(line(0))
        stream.end(60.0)
        assert pipe.read(20) == line(0)
        stream.write(line(1))
        assert pipe.read(20) == line(1)
        pipe.fill()
        stream.write(line(2))
        assert stream.dropped == 1
        pipe.drain()
        os.close(pipe.reads)
        stream.write(line(3))
        assert stream.dropped == 2


def test_what_is_no_utf_8_is_written_all_the_same() -> None:
    with small_pipe() as pipe:
        stream = stream_to(pipe)
        stream.write("\udcff\n")
        assert pipe.read(7) == "\\udcff\n"
        stream.end(60.0)
