"""The values mirror the proto."""

import pickle
from dataclasses import FrozenInstanceError, fields
from enum import Enum
from typing import Any

import grpc
import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

import kvblock
from kvblock import answers, operator_results, results
from kvblock.v1 import admin_pb2, errors_pb2
from kvblock.v1 import kvblock_pb2 as pb


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (kvblock.ErrorReason, errors_pb2.ErrorReason, "ERROR_REASON_"),
        (kvblock.RefusalReason, pb.RefusalReason, "REFUSAL_REASON_"),
        (kvblock.StepPolicy, pb.StepPolicy, "STEP_POLICY_"),
    ],
)
def test_enums(ours: type[Enum], theirs: EnumTypeWrapper, prefix: str) -> None:
    expected = {name.removeprefix(prefix): number for name, number in theirs.items()}
    if ours is kvblock.StepPolicy:
        del expected["UNSPECIFIED"]
    assert {member.name: member.value for member in ours} == expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (results.Granted, pb.Grant),
        (results.Refused, pb.Refusal),
        (results.BlockTable, pb.GetBlockTableResponse),
        (results.Capacity, pb.CanAllocateResponse),
        (results.StepResult, pb.StepResult),
        (results.EngineStats, pb.EngineStats),
        (results.PoolStats, pb.PoolStats),
        (results.ServerStats, pb.StatsResponse),
        (results.Attachment, pb.SessionAttached),
        (results.LeaseGranted, pb.Lease),
        (operator_results.PoolInfo, admin_pb2.Pool),
        (operator_results.SequenceInfo, admin_pb2.SequenceInfo),
        (operator_results.EngineInfo, admin_pb2.EngineInfo),
        (operator_results.BlockInfo, admin_pb2.BlockInfo),
        (operator_results.AuditReport, admin_pb2.AuditReport),
    ],
)
def test_fields(ours: Any, theirs: Any) -> None:
    expected = [field.name for field in theirs.DESCRIPTOR.fields]
    if ours is results.StepResult:
        # It comes beside the result, in the answer to a step.
        expected.append("owed_blocks")
    assert [field.name for field in fields(ours)] == expected


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        kvblock.Capacity(True, 3).free_blocks = 4  # type: ignore[misc]


def test_truth() -> None:
    assert kvblock.Capacity(True, 3)
    assert not kvblock.Capacity(False, 3)
    clean = kvblock.AuditReport("a", True, 1, 1, 0, 0, ())
    assert clean
    assert not kvblock.AuditReport("a", False, 1, 0, 0, 0, ("block 0 is lost",))


def test_a_refusal_is_true_so_that_its_presence_can_be_asked() -> None:
    assert kvblock.Refused(kvblock.RefusalReason.POOL_EXHAUSTED, 0, 1, None)


def test_refusal_of_a_newer_server() -> None:
    message = pb.Refusal(reason=99, free_blocks=1, needed=2)  # type: ignore[arg-type]
    assert answers.refused(message) == kvblock.Refused(
        kvblock.RefusalReason.UNSPECIFIED, 1, 2, None
    )


def test_answer_without_a_result() -> None:
    with pytest.raises(kvblock.KVBlockError, match="no result"):
        answers.allocated(pb.AllocateResponse())


def test_errors_survive_a_pickle() -> None:
    error = kvblock.UnavailableError(
        "text", reason=kvblock.ErrorReason.DRAINING, metadata={"a": "b"}
    )
    error.retry_after = 1.5
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), "text", error.__dict__)


def test_everything_public_is_there() -> None:
    assert sorted(kvblock.__all__) == kvblock.__all__
    assert all(hasattr(kvblock, name) for name in kvblock.__all__)
    assert kvblock.connect is kvblock.Client
    assert kvblock.connect_async is kvblock.AsyncClient


def test_code_is_optional() -> None:
    assert kvblock.KVBlockError("text").code is None
    assert kvblock.KVBlockError("text", code=grpc.StatusCode.INTERNAL).metadata == {}
