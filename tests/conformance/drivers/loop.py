"""The part of a driver that is the same for every kind of stubs: calls in, outcomes out.

A driver reads one JSON object a line from stdin and answers each with one on stdout:

    {"address": "unix:/run/x.sock", "method": "kvblock.v1.KVBlockService/Free",
     "messages": [{"sequence_id": "1"}], "linger": false}
    {"answers": [{}], "code": "OK", "details": "", "trailers": {}}

Messages are in protobuf's JSON form with the field names of the proto. `details` is the trailer
`grpc-status-details-bin` in base64, `trailers` are the plain ones. A stream sends a message, waits
for its answer, sends the next; then it closes its side, or with `linger` waits for the server to
end the stream.
"""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

TIMEOUT = 60.0


class Method(NamedTuple):
    """How to call one method: gRPC's callable and the class of its requests."""

    start: Callable[..., Any]
    request_class: type[Message]
    is_stream: bool


def serve(resolve: Callable[[grpc.Channel, str], Method]) -> None:
    """Carry out calls until stdin ends; `resolve` finds `package.Service/Method` on a channel."""
    channels: dict[str, grpc.Channel] = {}
    for line in sys.stdin:
        call = json.loads(line)
        address = call["address"]
        if address not in channels:
            channels[address] = grpc.insecure_channel(address)
        method = resolve(channels[address], call["method"])
        requests = [json_format.ParseDict(one, method.request_class()) for one in call["messages"]]
        if method.is_stream:
            outcome = converse(method, requests, call["linger"])
        else:
            outcome = ask(method, *requests)
        print(json.dumps(outcome), flush=True)


def ask(method: Method, request: Message) -> dict[str, Any]:
    try:
        answer, call = method.start.with_call(  # type: ignore[attr-defined]
            request, timeout=TIMEOUT
        )
    except grpc.RpcError as failed:
        return outcome([], failed)
    return outcome([answer], call)


def converse(method: Method, requests: list[Message], linger: bool) -> dict[str, Any]:
    outbox: SimpleQueue[Message | None] = SimpleQueue()
    messages: Iterator[Message | None] = iter(outbox.get, None)
    call = method.start(messages, timeout=TIMEOUT)
    answers: list[Message] = []
    try:
        # An RpcError is told by the call's status, below; StopIteration: the server has ended the
        # stream before it answered everything, and the status tells that, too.
        with suppress(grpc.RpcError, StopIteration):
            for request in requests:
                outbox.put(request)
                answers.append(next(call))
            if not linger:
                outbox.put(None)
            answers += call
    finally:
        outbox.put(None)
    return outcome(answers, call)


def outcome(answers: list[Message], call: Any) -> dict[str, Any]:
    trailers = dict(call.trailing_metadata() or ())
    plain = {name: text for name, text in trailers.items() if isinstance(text, str)}
    return {
        "answers": [
            json_format.MessageToDict(answer, preserving_proto_field_name=True)
            for answer in answers
        ],
        "code": call.code().name,
        "details": base64.b64encode(trailers.get("grpc-status-details-bin", b"")).decode(),
        "trailers": plain,
    }
