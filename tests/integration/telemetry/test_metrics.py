"""Metrics of a real server process, over OTLP and at its scrape endpoint."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import kvblock
from tests.integration.telemetry.receiver import Receiver

POOLS = ("kv:total=8,block_size=16,device=0", "spare:total=5,reserved=1,block_size=16,device=1")
LISTEN = ("--metrics-listen", "127.0.0.1:0")
METHOD = "kvblock.v1.KVBlockService/"


def key(**attributes: Any) -> frozenset[tuple[str, Any]]:
    return frozenset(attributes.items())


def work(server: kvblock.EmbeddedServer) -> kvblock.ServerStats:
    """Something of everything; answers what the server counts itself."""
    with kvblock.connect(server.address, pool="kv") as kv:
        kv.allocate(1, 6)
        kv.allocate(2, 3)
        kv.allocate(2, 30)
        kv.free(1)
        kv.allocate(3, 2)
        with pytest.raises(kvblock.NotFoundError):
            kv.get_block_table(1)
        with kv.session(engine="e1") as session:
            session.step(allocate=[7, 8])
            session.step(free=[7])
        session = kv.session(engine="e2")
        session.attach()
        kv.allocate(4, engine="e2")
        stats = kv.stats()
        session.detach()
        return stats


def assert_pools_agree(values: dict[str, dict[frozenset[tuple[str, Any]], Any]]) -> None:
    assert values["blocks"][key(pool="kv", state="free")] == 6
    assert values["blocks"][key(pool="kv", state="held")] == 2
    assert values["blocks"][key(pool="spare", state="free")] == 4
    assert values["blocks"][key(pool="spare", state="reserved")] == 1
    assert values["capacity"] == {key(pool="kv"): 8, key(pool="spare"): 5}
    assert values["sequences"] == {key(pool="kv"): 1, key(pool="spare"): 0}
    assert values["waiting"] == {key(pool="kv"): 0, key(pool="spare"): 0}
    assert values["sessions"] == {key(pool="kv"): 0, key(pool="spare"): 0}
    assert values["allocated"] == {key(pool="kv"): 11, key(pool="spare"): 0}
    assert values["freed"] == {key(pool="kv"): 9, key(pool="spare"): 0}
    assert values["refusals"][key(pool="kv", reason="POOL_EXHAUSTED")] == 1
    assert values["refusals"][key(pool="kv", reason="EXCEEDS_POOL")] == 1


def test_otlp_metrics_are_what_stats_says(receiver: Receiver) -> None:
    env = receiver.env | {"OTEL_TRACES_EXPORTER": "none"}
    with kvblock.EmbeddedServer(POOLS, env=env) as server:
        stats = work(server)
        assert server.stop() == 0
    assert receiver.spans == []
    assert_pools_agree(
        {
            "blocks": receiver.points("kvblock.pool.blocks"),
            "capacity": receiver.points("kvblock.pool.capacity.blocks"),
            "sequences": receiver.points("kvblock.pool.sequences"),
            "waiting": receiver.points("kvblock.pool.waiting"),
            "sessions": receiver.points("kvblock.sessions"),
            "allocated": receiver.points("kvblock.blocks.allocated"),
            "freed": receiver.points("kvblock.blocks.freed"),
            "refusals": receiver.points("kvblock.refusals"),
        }
    )
    (pool,) = [pool for pool in stats.pools if pool.pool == "kv"]
    assert (
        receiver.points("kvblock.blocks.allocated")[key(pool="kv")] == pool.allocated_blocks_total
    )
    assert receiver.metrics["kvblock.blocks.allocated"].sum.is_monotonic


def test_calls_and_steps_are_counted_and_timed(receiver: Receiver) -> None:
    with kvblock.EmbeddedServer(POOLS, env=receiver.env) as server:
        work(server)
        assert server.stop() == 0
    calls = {
        (dict(attributes)["rpc.method"], dict(attributes)["rpc.response.status_code"]): point
        for attributes, point in receiver.points("rpc.server.call.duration").items()
    }
    assert {name: point.count for name, point in calls.items()} == {
        (f"{METHOD}Allocate", "OK"): 5,
        (f"{METHOD}DetachEngine", "OK"): 2,
        (f"{METHOD}Free", "OK"): 1,
        (f"{METHOD}GetBlockTable", "NOT_FOUND"): 1,
        (f"{METHOD}Stats", "OK"): 1,
    }
    assert receiver.points("kvblock.streams.ended") == {
        key(
            **{
                "rpc.system.name": "grpc",
                "rpc.method": f"{METHOD}Session",
                "rpc.response.status_code": "OK",
            }
        ): 2
    }
    assert receiver.metrics["rpc.server.call.duration"].unit == "s"
    point = calls[f"{METHOD}Allocate", "OK"]
    assert point.sum > 0
    assert min(point.explicit_bounds) == 0.00005
    shown = {exemplar.trace_id.hex() for exemplar in point.exemplars}
    assert shown
    assert shown <= {span.trace_id for span in receiver.named(f"{METHOD}Allocate")}
    (steps,) = receiver.points("kvblock.step.duration").values()
    assert steps.count == 2


def scrape(address: str, accept: str) -> str:
    with urlopen(Request(f"http://{address}/metrics", headers={"Accept": accept})) as answer:
        body: bytes = answer.read()
    return body.decode()


@pytest.mark.parametrize(
    ("accept", "parse"),
    [
        ("text/plain", text_string_to_metric_families),
        ("application/openmetrics-text", openmetrics.text_string_to_metric_families),
    ],
)
def test_the_scrape_endpoint_shows_the_same(accept: str, parse: Any) -> None:
    with kvblock.EmbeddedServer(POOLS, extra_args=LISTEN) as server:
        work(server)
        assert server.metrics_address is not None
        text = scrape(server.metrics_address, accept)
        samples: dict[str, dict[frozenset[tuple[str, Any]], float]] = {}
        for family in parse(text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[key(**sample.labels)] = sample.value
        assert server.stop() == 0
    assert_pools_agree(
        {
            "blocks": samples["kvblock_pool_blocks"],
            "capacity": samples["kvblock_pool_capacity_blocks"],
            "sequences": samples["kvblock_pool_sequences"],
            "waiting": samples["kvblock_pool_waiting"],
            "sessions": samples["kvblock_sessions"],
            "allocated": samples["kvblock_blocks_allocated_total"],
            "freed": samples["kvblock_blocks_freed_total"],
            "refusals": samples["kvblock_refusals_total"],
        }
    )
    counts = samples["rpc_server_call_duration_seconds_count"]
    of_allocate = key(
        rpc_system_name="grpc",
        rpc_method=f"{METHOD}Allocate",
        rpc_response_status_code="OK",
        error_type="",
    )
    assert {k: v for k, v in counts.items() if ("rpc_method", f"{METHOD}Allocate") in k} in (
        {of_allocate: 5},
        {of_allocate - {("error_type", "")}: 5},
    )
    assert set(samples["kvblock_step_duration_seconds_count"].values()) == {2}


def test_live_sessions_and_waiting_calls_are_seen_while_they_last() -> None:
    with (
        kvblock.EmbeddedServer(POOLS, extra_args=LISTEN) as server,
        kvblock.connect(server.address, pool="kv") as kv,
        ThreadPoolExecutor() as threads,
    ):
        assert server.metrics_address is not None
        session = kv.session(engine="e1")
        session.attach()
        session.step(allocate=[1], num_blocks=[8])
        waiting = threads.submit(kv.allocate, 2, max_wait=30)
        while not kv.stats(pool="kv").pools[0].waiting:
            pass
        text = scrape(server.metrics_address, "text/plain")
        assert 'kvblock_sessions{pool="kv"} 1.0' in text
        assert 'kvblock_pool_waiting{pool="kv"} 1.0' in text
        session.detach()
        assert isinstance(waiting.result(), kvblock.Granted)
        text = scrape(server.metrics_address, "text/plain")
        assert 'kvblock_sessions{pool="kv"} 0.0' in text
        assert 'kvblock_pool_waiting{pool="kv"} 0.0' in text


def test_a_taken_metrics_port_stops_the_start() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = kvblock.EmbeddedServer(POOLS, extra_args=("--metrics-listen", address))
        with pytest.raises(kvblock.ServerStartError) as raised:
            server.start()
    assert f"metrics at {address}: another process listens on this port" in str(raised.value)
    assert "exit code 1" in str(raised.value)
    assert "Traceback" not in str(raised.value)
