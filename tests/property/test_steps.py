"""The step codec against protobuf: the same bytes out, and the same step in, or none at all."""

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.recall import Hints
from kvblock_service.rpc import step_wire
from tests.examples import examples

words = st.integers(0, 2**32 - 1)
ids = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=20)
counts = st.lists(words, max_size=20)
# Every step_id may come over the wire; those of ten bytes are protobuf's to read.
step_ids = st.integers(0, 300) | st.integers(0, 2**64 - 1)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
hints = st.none() | st.builds(
    pb.EngineHints, want_blocks=words | st.just(0), idle_blocks=words | st.just(0)
)
traceparents = st.sampled_from(["", TRACEPARENT, "00", "x" * 200]) | st.text(max_size=8)


def requests() -> st.SearchStrategy[pb.SessionRequest]:
    step = st.builds(
        pb.EngineStep,
        free_sequence_ids=ids,
        allocate_sequence_ids=ids,
        allocate_num_blocks=counts,
        policy=st.integers(0, 3) | st.integers(-(2**31), 2**31 - 1),
        release_block_numbers=counts,
        acquire_num_blocks=st.just(0) | words,
        trim_sequence_ids=ids,
        trim_head_blocks=counts,
        trim_tail_blocks=counts,
    )
    whole = st.builds(
        pb.SessionStep, step_id=step_ids, step=step, traceparent=traceparents, hints=hints
    )
    return st.builds(pb.SessionRequest, step=whole)


def by_protobuf(data: bytes) -> step_wire.StepColumns | None:
    """What protobuf makes of the same bytes; None when they are no step."""
    try:
        request = pb.SessionRequest.FromString(data)
    except DecodeError:
        return None
    if request.WhichOneof("message") != "step":
        return None
    step = request.step.step
    return step_wire.StepColumns(
        request.step.step_id,
        step.free_sequence_ids[:],
        step.allocate_sequence_ids[:],
        step.allocate_num_blocks[:],
        step.policy,
        request.step.traceparent,
        step.release_block_numbers[:],
        step.acquire_num_blocks,
        step.trim_sequence_ids[:],
        step.trim_head_blocks[:],
        step.trim_tail_blocks[:],
        Hints(request.step.hints.want_blocks, request.step.hints.idle_blocks)
        if request.step.HasField("hints")
        else None,
    )


def agree(data: bytes) -> None:
    found = step_wire.read_step(data)
    assert found is None or found == by_protobuf(data)


@given(request=requests())
def test_what_protobuf_writes_is_read_as_protobuf_reads_it(request: pb.SessionRequest) -> None:
    agree(request.SerializeToString())


@given(
    free=ids,
    allocate=ids,
    num_blocks=counts,
    step_id=st.integers(1, 2**62),
    policy=st.integers(0, 2),
    traceparent=st.sampled_from(["", TRACEPARENT, TRACEPARENT.replace("00", "01", 1) + "-a"]),
    by_number=st.just(([], 0, [], [], []))
    | st.tuples(counts, st.integers(0, 2**31 - 1), ids, counts, counts),
    hints=hints,
)
def test_what_a_client_writes_is_read_here(
    free: list[int],
    allocate: list[int],
    num_blocks: list[int],
    step_id: int,
    policy: Any,
    traceparent: str,
    by_number: tuple[list[int], int, list[int], list[int], list[int]],
    hints: pb.EngineHints | None,
) -> None:
    """Otherwise the fast way would be right and never taken."""
    step = pb.EngineStep(
        free_sequence_ids=free,
        allocate_sequence_ids=allocate,
        allocate_num_blocks=num_blocks,
        policy=policy,
        release_block_numbers=by_number[0],
        acquire_num_blocks=by_number[1],
        trim_sequence_ids=by_number[2],
        trim_head_blocks=by_number[3],
        trim_tail_blocks=by_number[4],
    )
    whole = pb.SessionStep(step_id=step_id, step=step, traceparent=traceparent, hints=hints)
    given_hints = Hints(hints.want_blocks, hints.idle_blocks) if hints else None
    columns = (step_id, free, allocate, num_blocks, policy, traceparent)
    expected = step_wire.StepColumns(*columns, *by_number, given_hints)
    assert step_wire.read_step(pb.SessionRequest(step=whole).SerializeToString()) == expected


@settings(max_examples=examples(1000))
@given(request=requests(), data=st.data())
def test_damaged_bytes_are_read_as_protobuf_reads_them_or_not_at_all(
    request: pb.SessionRequest, data: st.DataObject
) -> None:
    damaged = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "drop"]))
        some = data.draw(st.binary(min_size=1, max_size=4))
        if kind == "cut":
            del damaged[at:]
        elif kind == "insert":
            damaged[at:at] = some
        elif kind == "drop":
            del damaged[at : at + len(some)]
        else:
            damaged[at : at + len(some)] = some
    agree(bytes(damaged))


@settings(max_examples=examples(500))
@given(data=st.binary(max_size=40))
# A policy of 32 set bits: a negative number, which protobuf itself writes in ten bytes.
@example(data=b"\x08\x01\x12\x06\x20\xff\xff\xff\xff\x0f")
def test_any_bytes(data: bytes) -> None:
    agree(data)
    agree(b"\x12" + bytes((len(data),)) + data)


@given(first=requests(), second=requests())
def test_message_in_two_parts_is_not_mistaken(
    first: pb.SessionRequest, second: pb.SessionRequest
) -> None:
    agree(first.SerializeToString() + second.SerializeToString())


@given(
    step_id=step_ids,
    blocks=counts,
    granted=words,
    refusal=st.none()
    | st.builds(
        pb.Refusal, reason=st.integers(0, 2), free_blocks=words, needed=st.integers(0, 2**64 - 1)
    ),
    freed=counts,
    free_blocks=words,
    acquired=st.just([]) | counts,
    trimmed=st.just([]) | counts,
    owed=words | st.just(0),
)
def test_answer_is_written_as_protobuf_writes_it(
    step_id: int,
    blocks: list[int],
    granted: int,
    refusal: pb.Refusal | None,
    freed: list[int],
    free_blocks: int,
    acquired: list[int],
    trimmed: list[int],
    owed: int,
) -> None:
    result = pb.StepResult(
        block_numbers=blocks,
        granted=granted,
        freed_counts=freed,
        free_blocks=free_blocks,
        acquired_block_numbers=acquired,
        trimmed_counts=trimmed,
    )
    why = b""
    if refusal is not None and refusal.ByteSize():
        result.refusal.CopyFrom(refusal)
        why = refusal.SerializeToString()
    stepped = pb.SessionStepped(step_id=step_id, result=result, owed_blocks=owed)
    answer = pb.SessionResponse(stepped=stepped)
    written = step_wire.write_stepped(
        step_id, blocks, granted, why, freed, free_blocks, acquired, trimmed, owed
    )
    assert written == answer.SerializeToString()
