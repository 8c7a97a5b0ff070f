"""Every ErrorReason has a code, an exception on both sides, and a vector that reaches it."""

import re

import pytest

import kvblock
from kvblock.v1 import errors_pb2
from kvblock_service.errors import CallError, Reason
from kvblock_service.rpc.errors import CODES
from tests.conformance.cases import CASES
from tests.conformance.driving import PROTOS
from tests.conformance.malformed import BYTES

PREFIX = "ERROR_REASON_"
NUMBERS = {
    name.removeprefix(PREFIX): number for name, number in errors_pb2.ErrorReason.items() if number
}
DOCUMENTED = {
    name: code
    for code, name in re.findall(
        rf"^  // ([A-Z_]+): (?:(?!^  [A-Z])[\s\S])*?^  {PREFIX}([A-Z_]+) = ",
        (PROTOS / "kvblock/v1/errors.proto").read_text(),
        re.MULTILINE,
    )
}

ELSEWHERE = {
    "SLOW_READER": "tests/integration/access/test_limits.py",
    "JOURNAL_UNWRITABLE": "tests/integration/journal/test_unwritable.py",
}
"""Reasons that take a client which no vector describes, and the test that reaches them."""

every_reason = pytest.mark.parametrize("reason", NUMBERS)


def exceptions(base: type[CallError] = CallError) -> list[type[CallError]]:
    return [one for child in base.__subclasses__() for one in (child, *exceptions(child))]


def test_reasons_are_the_same_everywhere() -> None:
    assert {one.name: one.value for one in Reason} == NUMBERS
    client = {one.name: one.value for one in kvblock.ErrorReason if one.value}
    assert client == NUMBERS


@every_reason
def test_reason_has_the_code_that_the_proto_documents(reason: str) -> None:
    assert CODES[Reason[reason]].name == DOCUMENTED[reason]


@every_reason
def test_reason_has_one_exception(reason: str) -> None:
    assert len([one for one in exceptions() if one.reason is Reason[reason]]) == 1


@every_reason
def test_reason_is_reached_over_the_wire(reason: str) -> None:
    reached = [case.error for case in CASES] + [case.error for case in BYTES]
    if reason in ELSEWHERE:
        assert f'"{reason}"' in (PROTOS.parent / ELSEWHERE[reason]).read_text()
        return
    codes = {error.code for error in reached if error.reason == reason}
    assert codes == {DOCUMENTED[reason]}
