"""What an attach expects of its pool: what the engine was built for.

Rules:
- A field that is unset is not compared; one that is set has to be equal to the pool's.
- It is looked at before the attach changes anything.
"""

from typing import Any

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.pool import Geometry
from kvblock_service.errors import GeometryMismatch
from kvblock_service.rpc import validate

_FIELDS = tuple(pb.ExpectedGeometry.DESCRIPTOR.fields_by_name)
"""Each has the name of a field of Geometry."""


def check(request: pb.AttachEngineRequest | pb.SessionAttach, geometry: Geometry) -> None:
    """Compare what an attach expects with its pool.

    Raises:
        InvalidField: what is expected is no layout.
        GeometryMismatch: the pool differs from it.

    """
    if not request.HasField("expect"):
        return
    expect = request.expect
    validate.layout("expect.layout", expect.layout)
    differing: dict[str, Any] = {}
    for name in _FIELDS:
        has, expected = getattr(geometry, name), getattr(expect, name)
        if expect.HasField(name) and has != expected:  # type: ignore[arg-type]
            differing |= {name: has, f"expected_{name}": expected}
    if differing:
        raise GeometryMismatch(geometry.name, **differing)
