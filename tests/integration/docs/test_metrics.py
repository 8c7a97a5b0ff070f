"""The tables of docs/metrics.md: metrics as a scrape gives them, and all alerts."""

from pathlib import Path
from urllib.request import urlopen

import yaml
from prometheus_client.parser import text_string_to_metric_families

import kvblock
from tests.conftest import ServerFactory
from tests.integration.docs.markdown import ROOT, tables

PAGE = ROOT / "docs/metrics.md"
NOT_OURS = {"target_info"}
ALWAYS_THE_SAME = {"le", "rpc_system_name"}


def test_every_metric_is_in_the_table_with_its_labels(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    arguments = ("--metrics-listen", "127.0.0.1:0", "--state-dir", str(tmp_path))
    server = server_factory(extra_args=arguments)
    with kvblock.connect(server.address) as kv:
        with kv.session() as session:
            session.step(allocate=[1])
        kv.allocate(1, kv.stats().pools[0].total_blocks)
        kv.allocate(2, max_wait=0.01)
        with kv.session(engine="e1"), urlopen(f"http://{server.metrics_address}/metrics") as answer:
            text = answer.read().decode()
    scraped: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if name not in NOT_OURS:
            labels = {label for sample in family.samples for label in sample.labels}
            scraped[name] = labels - ALWAYS_THE_SAME
    (table,) = (table for table in tables(PAGE) if table.rows[0][0] == "Metric")
    assert scraped == {
        row[0].strip("`"): set(row[1].replace("`", "").replace(",", " ").split())
        for row in table.rows[1:]
    }


def test_every_alert_is_in_the_table() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    named = [f"`{rule['alert']}`" for group in rules["groups"] for rule in group["rules"]]
    (table,) = (table for table in tables(PAGE) if table.rows[0][0] == "Alert")
    assert [row[0] for row in table.rows[1:]] == named
