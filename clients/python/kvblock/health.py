"""The standard health check (grpc.health.v1), as far as a client needs it.

Rules:
- A request for the server as a whole is an empty message, so it is sent as no bytes.
- An answer that cannot be read counts as not serving.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from kvblock import wire

CHECK = "/grpc.health.v1.Health/Check"
_SERVING = 1


def is_serving(answer: bytes) -> bool:
    """Whether a HealthCheckResponse says SERVING."""
    try:
        return bool(wire.HealthCheckResponse.FromString(answer).status == _SERVING)
    except DecodeError:
        return False
