"""Every call of both clients against a real server: one table of what is said and answered."""

from dataclasses import replace
from typing import Any, NamedTuple

import pytest

import kvblock
from kvblock import (
    AuditReport,
    BlockTable,
    Capacity,
    EngineStats,
    ErrorReason,
    Granted,
    InvalidArgumentError,
    NotFoundError,
    PoolInfo,
    PoolStats,
    RefusalReason,
    Refused,
    SequenceInfo,
    StepPolicy,
    StepResult,
)
from kvblock.arguments import SECONDS_MAX
from tests.conftest import ServerFactory
from tests.integration.client.flavours import Flavour

POOLS = ("main:total=4,block_size=16,device=7", "side:total=3,block_size=8,device=1")
IN_ORDER = StepPolicy.IN_ORDER_UNTIL_REFUSED


class Failure(NamedTuple):
    """What an error says."""

    kind: type[kvblock.KVBlockError]
    reason: ErrorReason | None
    metadata: dict[str, str]


def exhausted(free: int, needed: int) -> Refused:
    return Refused(RefusalReason.POOL_EXHAUSTED, free, needed, 0.01)


MAIN = PoolStats(
    pool="main",
    total_blocks=4,
    free_blocks=1,
    held_blocks=3,
    block_size=16,
    device_id=7,
    sequences=2,
    allocated_blocks_total=8,
    freed_blocks_total=5,
    refusals={RefusalReason.POOL_EXHAUSTED: 2, RefusalReason.EXCEEDS_POOL: 1},
    revision=6,
    waiting=0,
    # What `a` was refused last counts as lacked for a while.
    engines=(EngineStats("a", 2, 1, False, want_blocks=2), EngineStats("b", 1, 1, False)),
    want_blocks=2,
)
SIDE = PoolStats("side", 3, 3, 0, 8, 1, 0, 0, 0, {}, 0, 0, ())

TABLE: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("health", (), {}, True),
    (
        "list_pools",
        (),
        {},
        (PoolInfo("main", 4, 16, 7, True), PoolInfo("side", 3, 8, 1, False)),
    ),
    ("allocate", (10,), {}, Granted([0], 16, 7, 1)),
    ("allocate", (10, 2), {}, Granted([1, 2], 16, 7, 3)),
    ("allocate", (10,), {"num_blocks": 2}, exhausted(1, 2)),
    (
        "allocate",
        (10, 5),
        {},
        Refused(RefusalReason.EXCEEDS_POOL, 1, 5, None),
    ),
    ("get_block_table", (10,), {}, BlockTable([0, 1, 2], 16, 7)),
    ("can_allocate", (), {}, Capacity(True, 1)),
    ("can_allocate", (2,), {}, Capacity(False, 1)),
    ("can_allocate", (0,), {"pool": "side"}, Capacity(True, 3)),
    ("allocate", (10,), {"engine": "b"}, Granted([3], 16, 7, 1)),
    ("free_returning_count", (10,), {}, 3),
    ("free_returning_count", (10,), {}, 0),
    ("free", (10,), {}, None),
    (
        "get_block_table",
        (10,),
        {},
        Failure(
            NotFoundError,
            ErrorReason.SEQUENCE_NOT_FOUND,
            {"pool": "main", "engine": "a", "sequence_id": "10"},
        ),
    ),
    ("step", (), {"allocate": [1, 2], "num_blocks": [1, 1]}, StepResult([2, 1], 2, None, [], 1)),
    (
        "step",
        (),
        {"free": [1, 9, 2], "allocate": (3, 4), "num_blocks": [2, 2], "policy": IN_ORDER},
        StepResult([1, 2], 1, exhausted(1, 2), [1, 0, 1], 1),
    ),
    (
        "list_sequences",
        (),
        {"page_size": 1},
        [SequenceInfo("a", 3, 2), SequenceInfo("b", 10, 1)],
    ),
    ("list_sequences", (), {"engine": "b"}, [SequenceInfo("b", 10, 1)]),
    ("list_sequences", (), {"pool": "side"}, []),
    ("stats", (), {}, (MAIN, SIDE)),
    (
        "stats",
        (),
        {"pool": "main", "engine": "c"},
        (replace(MAIN, engines=(EngineStats("c", 0, 0, False),)),),
    ),
    (
        "audit",
        (),
        {},
        (
            AuditReport("main", True, 4, 1, 3, 2, ()),
            AuditReport("side", True, 3, 3, 0, 0, ()),
        ),
    ),
    ("audit", (), {"pool": "side"}, (AuditReport("side", True, 3, 3, 0, 0, ()),)),
    (
        "allocate",
        (1,),
        {"pool": "none"},
        Failure(NotFoundError, ErrorReason.POOL_NOT_FOUND, {"pool": "none"}),
    ),
    (
        "allocate",
        (1, 0),
        {},
        Failure(
            InvalidArgumentError, ErrorReason.INVALID_FIELD, {"field": "num_blocks", "value": "0"}
        ),
    ),
    (
        "allocate",
        (-1,),
        {},
        Failure(
            InvalidArgumentError,
            ErrorReason.INVALID_FIELD,
            {"field": "sequence_id", "value": "-1"},
        ),
    ),
    (
        "step",
        (),
        {"free": [1, 1]},
        Failure(
            InvalidArgumentError,
            ErrorReason.INVALID_FIELD,
            {"field": "step.free_sequence_ids[1]", "value": "1"},
        ),
    ),
]


def test_table(server_factory: ServerFactory, flavour: Flavour) -> None:
    address = server_factory(POOLS, ("--default-pool", "main")).address
    with flavour.entered(flavour.client(address, engine="a", timeout=30.0)) as kv:
        for name, arguments, keywords, expected in TABLE:
            said = f"{name}{arguments}{keywords}"
            try:
                answer = flavour.do(getattr(kv, name)(*arguments, **keywords))
            except kvblock.KVBlockError as error:
                answer = Failure(type(error), error.reason, error.metadata)
            if name == "stats":
                answer = answer.pools
            assert answer == expected, said


def test_max_wait_is_added_to_the_client_s_timeout(
    server: kvblock.EmbeddedServer, flavour: Flavour
) -> None:
    """A wait that is longer than the timeout ends in a refusal, not in an exceeded deadline."""
    with flavour.entered(flavour.client(server.address, timeout=30.0)) as kv:
        flavour.do(kv.allocate(1, 64))
    with flavour.entered(flavour.client(server.address, timeout=1.0)) as kv:
        answer = flavour.do(kv.allocate(2, max_wait=1.2))
        assert isinstance(answer, Refused)


@pytest.mark.parametrize("wait", [1e10, SECONDS_MAX])
def test_a_wait_that_is_too_long_is_refused_by_the_server(
    shared_server: kvblock.EmbeddedServer, flavour: Flavour, wait: float
) -> None:
    with (
        flavour.entered(flavour.client(shared_server.address, timeout=30.0)) as kv,
        pytest.raises(InvalidArgumentError) as caught,
    ):
        flavour.do(kv.allocate(1, max_wait=wait))
    assert caught.value.reason is ErrorReason.REQUEST_LIMIT


def test_a_wait_that_succeeds(server: kvblock.EmbeddedServer, flavour: Flavour) -> None:
    with (
        flavour.entered(flavour.client(server.address, timeout=30.0)) as kv,
        flavour.entered(kv.session(engine="other")) as session,
    ):
        flavour.do(session.step(allocate=[1], num_blocks=[64]))
        with pytest.raises(kvblock.DeadlineExceededError) as caught:
            flavour.do(kv.allocate(1, max_wait=20.0, timeout=0.05))
        assert caught.value.reason is None
        flavour.do(session.step(free=[1]))
        assert flavour.do(kv.allocate(1, max_wait=20.0)).table_length == 1


def test_closed_client(
    shared_server: kvblock.EmbeddedServer, flavour: Flavour, engine: str
) -> None:
    kv = flavour.client(shared_server.address, engine=engine)
    with flavour.entered(kv):
        session = kv.session()
        flavour.do(session.attach())
    with pytest.raises(kvblock.ClosedError, match="this client is closed"):
        flavour.do(kv.health())
    with pytest.raises(kvblock.ClosedError, match="this session has ended: it was closed"):
        flavour.do(session.step())
    with pytest.raises(kvblock.ClosedError, match="this client is closed"):
        flavour.do(kv.session().attach())
    flavour.do(kv.close())


def test_nobody_there(tmp_path: Any, flavour: Flavour) -> None:
    with flavour.entered(flavour.client(f"unix:{tmp_path}/none.sock", timeout=0.3)) as kv:
        for call in (kv.health, kv.stats, kv.session().attach, kv.attach_engine):
            with pytest.raises(kvblock.UnavailableError, match="no server answers at unix:"):
                flavour.do(call())


def test_defaults_of_the_client(server: kvblock.EmbeddedServer, flavour: Flavour) -> None:
    with flavour.entered(flavour.client(server.address, pool="main", engine="x")) as kv:
        assert (kv.address, kv.pool, kv.engine) == (server.address, "main", "x")
        flavour.do(kv.allocate(1))
        assert flavour.do(kv.stats()).pools[0].engines == (EngineStats("x", 1, 1, False),)


def test_tcp_in_spite_of_a_proxy(
    server_factory: ServerFactory, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = server_factory(extra_args=("--listen", "127.0.0.1:0")).addresses[1]
    with flavour.entered(flavour.client(address, timeout=30.0)) as kv:
        assert flavour.do(kv.health())
