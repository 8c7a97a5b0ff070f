"""Every ErrorReason is declared once on both sides, with its code, and a vector reaches it."""

import re
from dataclasses import fields

import pytest

import kvblock
from kvblock.v1 import errors_pb2
from kvblock_service.call_error import CallError
from kvblock_service.errors import ERRORS
from tests.conformance.cases import CASES, THEN
from tests.conformance.driving import PROTOS
from tests.conformance.malformed import BYTES

PREFIX = "ERROR_REASON_"
NUMBERS = {
    name.removeprefix(PREFIX): number for name, number in errors_pb2.ErrorReason.items() if number
}
COMMENTS = {
    name: " ".join(comment.replace("//", " ").split())
    for comment, name in re.findall(
        rf"((?:^  //.*\n)+)^  {PREFIX}([A-Z_]+) = [1-9]",
        (PROTOS / "kvblock/v1/errors.proto").read_text(),
        re.MULTILINE,
    )
}
DOCUMENTED = {name: comment.partition(":")[0] for name, comment in COMMENTS.items()}

ELSEWHERE = {
    "SLOW_READER": "tests/integration/access/test_limits.py",
    "JOURNAL_UNWRITABLE": "tests/integration/journal/test_unwritable.py",
}
"""Reasons that take a client which no vector describes, and the test that reaches them."""

every_reason = pytest.mark.parametrize("reason", NUMBERS)


def test_service_declares_each_reason_once_with_the_code_that_the_proto_documents() -> None:
    assert tuple(CallError.__subclasses__()) == ERRORS
    assert sorted((one.reason, one.code) for one in ERRORS) == sorted(DOCUMENTED.items())
    assert not [deeper for one in ERRORS for deeper in one.__subclasses__()]


@every_reason
def test_service_declares_what_to_do_after_each_reason(reason: str) -> None:
    (declared,) = (one for one in ERRORS if one.reason == reason)
    assert vars(declared)["then"].value == THEN[reason]


def test_service_sends_the_metadata_that_the_proto_documents() -> None:
    for one in ERRORS:
        described = COMMENTS[one.reason].partition("Metadata:")[2]
        # What is in parentheses are values.
        documented = set(re.findall(r"(?<!\()`([a-z_]+)`", described))
        sent = {fact.name for fact in fields(one) if "aside" not in fact.metadata}
        assert documented <= sent, one.reason
        assert sent - documented <= {"message_type", "pool", "engine"}, one.reason


def test_client_declares_each_reason_once_with_the_number_and_code_of_the_proto() -> None:
    declared = [one for one in kvblock.ErrorReason if one.value]
    assert {one.name: one.value for one in declared} == NUMBERS
    assert {one.name: one.code.name for one in declared if one.code} == DOCUMENTED


@every_reason
def test_reason_is_reached_over_the_wire(reason: str) -> None:
    reached = [case.error for case in CASES] + [case.error for case in BYTES]
    if reason in ELSEWHERE:
        assert f'"{reason}"' in (PROTOS.parent / ELSEWHERE[reason]).read_text()
        return
    codes = {error.code for error in reached if error.reason == reason}
    assert codes == {DOCUMENTED[reason]}
