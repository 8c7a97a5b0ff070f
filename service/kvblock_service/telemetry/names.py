"""The names of attributes and instruments, and which statuses are the server's fault.

Rules:
- RPC names are those of the OpenTelemetry semantic conventions that replace `rpc.system`,
  `rpc.service` and `rpc.grpc.status_code`: the method's name is fully qualified, the status is its
  name.
- kvblock's own span attributes begin with `kvblock.`; a unit that is not plain is in the name.
- A metric is never told apart by sequence: their number has no bound. By engine, only where the
  series end with their engine: see `engines`.
"""

from grpc import StatusCode

SCOPE = "kvblock"
STEP_SPAN = "kvblock.step"

RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"

POOL = "kvblock.pool"
ENGINE = "kvblock.engine"
STEP_ID = "kvblock.step_id"
BLOCKS_ASKED = "kvblock.blocks.asked"
BLOCKS_GRANTED = "kvblock.blocks.granted"
BLOCKS_FREED = "kvblock.blocks.freed"
REFUSAL_REASON = "kvblock.refusal.reason"
LOCK_WAIT_NS = "kvblock.lock_wait_ns"

SERVER_FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
"""Statuses that make a server span an error; the others are answers to what the client did."""


def method_attributes(method: str) -> dict[str, str]:
    """What is known of a call before it began; `method` is `package.Service/Method`."""
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method}


def status_attributes(code: StatusCode) -> dict[str, str]:
    """What is known of a call once it has ended."""
    attributes = {RPC_RESPONSE_STATUS_CODE: code.name}
    if code in SERVER_FAULTS:
        attributes[ERROR_TYPE] = code.name
    return attributes
