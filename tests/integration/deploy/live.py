"""A server in which every metric has a value, its scrape, and a Prometheus that scrapes it."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import yaml
from prometheus_client.parser import text_string_to_metric_families

import kvblock
from tests import waiting
from tests.conftest import ServerFactory
from tests.integration.busy import busy

JOB = "kvblock"

Series = dict[str, list[dict[str, str]]]


@contextmanager
def busy_server(factory: ServerFactory, folder: Path) -> Iterator[kvblock.EmbeddedServer]:
    """A server after calls and sessions that ended well and badly, with an engine that is there."""
    listen = ("--metrics-listen", "127.0.0.1:0", "--state-dir", str(folder / "state"))
    server = factory(("main:total=8",), listen)
    with busy(server):
        yield server


def series_of(server: kvblock.EmbeddedServer) -> Series:
    """What Prometheus has of a server: the samples by name, with the labels that it adds."""
    with urlopen(f"http://{server.metrics_address}/metrics") as answer:
        text = answer.read().decode()
    added = {"job": JOB, "instance": str(server.metrics_address)}
    found: Series = {"up": [added]}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels | added)
    return found


class Prometheus:
    """A running Prometheus at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        found: list[dict[str, Any]] = self._get(f"query?query={quote(expression)}")["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """The alerts that are loaded, with what came of their last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"http://{self.address}/api/v1/{path}") as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        data: dict[str, Any] = told["data"]
        return data


@contextmanager
def prometheus(program: Path, target: str, rules: Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server, many times a second, and evaluates alerts as often."""
    often = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    job = {"job_name": JOB, "static_configs": [{"targets": [target]}]}
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump({"global": often, "rule_files": [str(rules)], "scrape_configs": [job]})
    )
    log = folder / "prometheus.log"
    command = (
        *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"),
        "--web.listen-address=127.0.0.1:0",
    )
    with log.open("wb") as written, subprocess.Popen(command, stderr=written) as process:
        try:
            waiting.happens(lambda: process.poll() is not None or "is ready" in log.read_text())
            bound = re.search(r'"Listening on" address=(\S+)', log.read_text())
            assert bound is not None, log.read_text()
            yield Prometheus(bound[1])
        finally:
            process.terminate()
            process.wait()
