"""Who looks after leases: a busy server loses none, and one that cannot says so."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc
from kvblock_service import main
from kvblock_service.config import PoolConfig, ServerSettings
from kvblock_service.persistence import PersistentState
from kvblock_service.reaper import Reaper
from kvblock_service.rpc.server import KVBlockServer
from tests.conftest import ServerFactory
from tests.integration.sessions.wire import PATIENCE, SESSION

SESSIONS = 64
RENEWALS = 12
TTL_SECONDS = 2


async def saturate(address: str, engine: str, end: asyncio.Event) -> int:
    """Steps without a pause until the end; answers how many."""
    async with grpc.aio.insecure_channel(address) as channel:
        generic: Any = channel
        call = generic.stream_stream(SESSION)(timeout=10 * PATIENCE)
        attach = pb.SessionAttach(engine=engine)
        attach.ttl.FromSeconds(TTL_SECONDS)
        await call.write(pb.SessionRequest(attach=attach).SerializeToString())
        await call.read()
        number = 0
        while not end.is_set():
            number += 1
            work = pb.EngineStep(free_sequence_ids=[number - 1], allocate_sequence_ids=[number])
            step = pb.SessionRequest(step=pb.SessionStep(step_id=number, step=work))
            await call.write(step.SerializeToString())
            assert isinstance(await call.read(), bytes)
        call.cancel()
        return number


async def storm(address: str) -> tuple[pb.PoolStats, list[int]]:
    """One engine that only renews, often enough, in the middle of all the others."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub: Any = kvblock_pb2_grpc.KVBlockServiceStub(channel)
        attach = pb.AttachEngineRequest(engine="calm")
        attach.ttl.FromSeconds(TTL_SECONDS)
        lease = (await stub.AttachEngine(attach)).lease
        end = asyncio.Event()
        busy = [
            asyncio.create_task(saturate(address, f"busy-{one}", end)) for one in range(SESSIONS)
        ]
        pause = lease.renew_after.ToMilliseconds() / 1000
        for _ in range(RENEWALS):
            # What an engine does between two renewals; nothing is waited for.
            await asyncio.sleep(pause)
            await stub.RenewLease(pb.RenewLeaseRequest(engine="calm", epoch=lease.epoch))
        (stats,) = (await stub.Stats(pb.StatsRequest())).pools
        end.set()
        return stats, await asyncio.gather(*busy)


def test_busy_server_loses_no_lease(server_factory: ServerFactory) -> None:
    server = server_factory(("main:total=4096",), ("--lease-ttl-min=0.5",))
    stats, steps = asyncio.run(storm(server.address))
    assert stats.expired_leases_total == 0
    assert len([one for one in stats.engines if one.attached]) == SESSIONS + 1
    assert min(steps) > 1


def test_server_without_its_reaper_does_not_say_that_it_serves(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/kv.sock"
    pools = (PoolConfig(name="main", total_blocks=8),)
    config = ServerSettings(pools=pools, listen=(address,), tls_key=None, ephemeral=True)

    async def scenario() -> None:
        host = main.build_host(config, PersistentState(config))
        server = KVBlockServer(host, main.service_options(config))
        server.bind(address)
        await server.start()
        moments = iter([0, 100])

        def clock() -> int:
            for moment in moments:
                return moment
            raise OSError("the clock has stopped")

        try:
            async with grpc.aio.insecure_channel(address) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                await main._looked_after(server, Reaper(host, clock).run, "leases are")
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                checked = await health.Check(health_pb2.HealthCheckRequest())
                assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
        finally:
            await server.drain(1.0)
            server.release()

    asyncio.run(scenario())
