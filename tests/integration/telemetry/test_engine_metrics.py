"""Metrics of single engines, of the journal, of waits and of the process, at a real scrape."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import kvblock
from tests.integration.busy import busy
from tests.integration.sessions.wire import Wire
from tests.integration.telemetry.receiver import Receiver

POOL = "kv:total=8,block_size=16,device=0"
LISTEN = ("--metrics-listen", "127.0.0.1:0")
# Where `make test` puts it, or wherever else it is.
PROMTOOL = shutil.which(
    "promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)

Samples = dict[str, dict[frozenset[tuple[str, Any]], float]]


def key(**attributes: Any) -> frozenset[tuple[str, Any]]:
    return frozenset(attributes.items())


def text_of(server: kvblock.EmbeddedServer) -> str:
    with urlopen(f"http://{server.metrics_address}/metrics") as answer:
        body: bytes = answer.read()
    return body.decode()


def scraped(server: kvblock.EmbeddedServer) -> Samples:
    samples: Samples = {}
    for family in text_string_to_metric_families(text_of(server)):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[key(**sample.labels)] = sample.value
    return samples


def scraped_until(server: kvblock.EmbeddedServer, condition: Callable[[Samples], bool]) -> Samples:
    while not condition(samples := scraped(server)):
        pass
    return samples


def of_engines(samples: Samples) -> set[str]:
    return {
        str(dict(labels)["engine"])
        for name, series in samples.items()
        if name.startswith("kvblock_engine_")
        for labels in series
    }


def test_engines_have_series_for_as_long_as_they_are_there() -> None:
    with (
        kvblock.EmbeddedServer((POOL,), extra_args=LISTEN) as server,
        kvblock.connect(server.address) as kv,
    ):
        assert of_engines(scraped(server)) == set()
        kv.allocate(1, 3, engine="loose")
        with kv.session(engine="leased") as session:
            session.step(allocate=[1, 2])
            session.step(allocate=[3], num_blocks=[9])
            session.step(allocate=[3, 4, 5, 6], policy=kvblock.StepPolicy.IN_ORDER_UNTIL_REFUSED)
            kv.allocate(9, 8, engine="loose")
            kv.allocate(9, 8, engine="nobody")
            samples = scraped(server)
            loose, leased = key(pool="kv", engine="loose"), key(pool="kv", engine="leased")
            assert samples["kvblock_engine_held_blocks"] == {loose: 3, leased: 5}
            assert samples["kvblock_engine_sequences"] == {loose: 1, leased: 5}
            assert samples["kvblock_engine_refusals_total"] == {loose: 1, leased: 2}
            # Each lacks what it was refused last, and so does one that has no series.
            assert samples["kvblock_engine_want_blocks"] == {loose: 5, leased: 1}
            assert samples["kvblock_engine_idle_blocks"] == {loose: 0, leased: 0}
            assert samples["kvblock_pool_want_blocks"] == {key(pool="kv"): 14}
            session.step(hints=kvblock.EngineHints(idle_blocks=3))
            samples = scraped(server)
            assert samples["kvblock_engine_want_blocks"][leased] == 0
            assert samples["kvblock_engine_idle_blocks"] == {loose: 0, leased: 3}
            assert samples["kvblock_engine_owed_blocks"] == {loose: 0, leased: 3}
            assert samples["kvblock_pool_owed_blocks"] == {key(pool="kv"): 3}
            # It goes on with each renewal, so only that it is there is certain.
            ages = samples["kvblock_engine_heartbeat_age_seconds"]
            assert ages.keys() == {leased}
            assert ages[leased] >= 0
        assert of_engines(scraped(server)) == {"loose"}
        kv.free(1, engine="loose")
        assert of_engines(scraped(server)) == set()


def test_the_age_of_a_heartbeat_grows_until_the_next_one() -> None:
    with kvblock.EmbeddedServer((POOL,), extra_args=LISTEN) as server:
        wire = Wire(server.address)
        epoch = wire.attach("quiet", ttl_ms=60_000).lease.epoch

        def age(samples: Samples) -> float:
            return samples["kvblock_engine_heartbeat_age_seconds"][key(pool="kv", engine="quiet")]

        old = age(scraped_until(server, lambda samples: age(samples) > 0.2))
        wire.renew("quiet", epoch)
        assert age(scraped(server)) < old


def test_more_engines_than_the_sdk_remembers_come_and_go() -> None:
    """Its limit is 2,000 series of an instrument for as long as a process runs."""
    with kvblock.EmbeddedServer(("kv:total=700",), extra_args=LISTEN) as server:
        with kvblock.connect(server.address) as kv:
            for round_ in range(3):
                names = [f"engine-{round_}-{number}" for number in range(700)]
                for number, name in enumerate(names):
                    kv.allocate(number, engine=name)
                assert of_engines(scraped(server)) == set(names)
                for number, name in enumerate(names):
                    kv.free(number, engine=name)
        assert "overflow" not in text_of(server)
        assert of_engines(scraped(server)) == set()


def test_engines_are_sent_over_otlp_too(receiver: Receiver) -> None:
    env = receiver.env | {"OTEL_TRACES_EXPORTER": "none"}
    with kvblock.EmbeddedServer((POOL,), env=env) as server:
        with kvblock.connect(server.address) as kv:
            kv.allocate(1, 3, engine="loose")
            kv.allocate(2, 8, engine="loose")
        assert server.stop() == 0
    loose = key(pool="kv", engine="loose")
    assert receiver.points("kvblock.engine.held.blocks") == {loose: 3}
    assert receiver.points("kvblock.engine.refusals") == {loose: 1}
    assert receiver.metrics["kvblock.engine.refusals"].sum.is_monotonic


@pytest.mark.parametrize("durability", ["process", "host"])
def test_the_journal_shows_its_size_and_its_commits(tmp_path: Path, durability: str) -> None:
    arguments = ("--state-dir", str(tmp_path), "--durability", durability)
    with (
        kvblock.EmbeddedServer((POOL,), (*LISTEN, *arguments)) as server,
        kvblock.connect(server.address) as kv,
    ):
        before = scraped(server)
        assert before["kvblock_journal_unwritable"] == {key(): 0}
        for number in range(5):
            kv.allocate(number)
        after = scraped(server)
        assert "kvblock_journal_commit_duration_seconds_count" not in before
        assert after["kvblock_journal_commit_duration_seconds_count"] == {key(): 5}
        taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("journal-*"))
        assert after["kvblock_journal_size_bytes"][key()] >= taken > 0
        written = "kvblock_journal_written_bytes_total"
        assert after[written][key()] > before[written][key()]


def test_a_journal_that_cannot_be_written_is_seen(tmp_path: Path) -> None:
    arguments = ("--state-dir", str(tmp_path))
    with (
        kvblock.EmbeddedServer((POOL,), (*LISTEN, *arguments)) as server,
        kvblock.connect(server.address, retries=False) as kv,
    ):
        pid, hard = server.process.pid, resource.RLIM_INFINITY
        kv.allocate(1)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(kvblock.UnavailableError):
            kv.allocate(2)
        assert scraped(server)["kvblock_journal_unwritable"] == {key(): 1}
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        scraped_until(server, lambda samples: not samples["kvblock_journal_unwritable"][key()])


def test_a_server_that_keeps_nothing_shows_no_journal() -> None:
    with kvblock.EmbeddedServer((POOL,), (*LISTEN, "--ephemeral")) as server:
        with kvblock.connect(server.address) as kv:
            kv.allocate(1)
        assert "kvblock_journal" not in text_of(server)


def test_waits_are_measured_whatever_comes_of_them() -> None:
    with (
        kvblock.EmbeddedServer((POOL, "other:total=1"), LISTEN) as server,
        kvblock.connect(server.address, pool="kv") as kv,
        ThreadPoolExecutor() as threads,
    ):
        assert isinstance(kv.allocate(1, 8, max_wait=30), kvblock.Granted)
        assert "kvblock_allocation_wait" not in text_of(server)
        assert isinstance(kv.allocate(2, 1, max_wait=0.01), kvblock.Refused)
        with pytest.raises(kvblock.DeadlineExceededError):
            kv.allocate(2, 1, max_wait=30, timeout=0.2)
        while kv.stats(pool="kv").pools[0].waiting:
            pass
        granted = threads.submit(kv.allocate, 2, 1, max_wait=30)
        while not kv.stats(pool="kv").pools[0].waiting:
            pass
        kv.free(1)
        assert isinstance(granted.result(), kvblock.Granted)
        samples = scraped(server)
        assert samples["kvblock_allocation_wait_duration_seconds_count"] == {key(pool="kv"): 3}
        assert samples["kvblock_allocation_wait_duration_seconds_sum"][key(pool="kv")] >= 0.2


def test_sessions_are_counted_and_not_among_the_durations_of_calls() -> None:
    with (
        kvblock.EmbeddedServer((POOL,), LISTEN) as server,
        kvblock.connect(server.address) as kv,
    ):
        with kv.session() as session:
            session.step(allocate=[1])
        samples = scraped_until(server, lambda samples: "kvblock_streams_ended_total" in samples)
        session_labels = key(
            rpc_method="kvblock.v1.KVBlockService/Session",
            rpc_response_status_code="OK",
            rpc_system_name="grpc",
        )
        assert samples["kvblock_streams_ended_total"] == {session_labels: 1}
        measured = samples["rpc_server_call_duration_seconds_count"]
        methods = {str(dict(labels)["rpc_method"]) for labels in measured}
        assert methods == {"kvblock.v1.KVBlockService/DetachEngine"}


def test_the_process_is_shown() -> None:
    with kvblock.EmbeddedServer((POOL,), LISTEN) as server:
        samples = scraped(server)
        assert samples["process_open_fds"][key()] > 3
        assert samples["process_resident_memory_bytes"][key()] > 2**20
        assert samples["process_max_fds"][key()] >= samples["process_open_fds"][key()]
        assert samples["process_cpu_seconds_total"][key()] > 0
        assert samples["process_start_time_seconds"][key()] > 0


def everything(server: kvblock.EmbeddedServer) -> str:
    """A scrape in which every metric has a value."""
    with busy(server):
        return text_of(server)


@pytest.mark.skipif(
    PROMTOOL is None,
    reason="no promtool here, so no metric is linted; scripts/install_promtool.sh fetches it",
)
def test_promtool_has_nothing_to_say_about_a_scrape() -> None:
    assert PROMTOOL is not None
    with kvblock.EmbeddedServer((POOL,), LISTEN) as server:
        text = everything(server)
    lint = [PROMTOOL, "check", "metrics"]
    linted = subprocess.run(lint, input=text, text=True, capture_output=True, check=False)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_only_counters_are_called_total() -> None:
    """Where promtool is missing, too."""
    with kvblock.EmbeddedServer((POOL,), LISTEN) as server:
        lines = everything(server).splitlines()
    kinds = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    assert {name for name, kind in kinds.items() if name.endswith("_total")} == {
        name for name, kind in kinds.items() if kind == "counter"
    }
