"""deploy/prometheus: rules that Prometheus takes, that fire when they should and say what to do."""

from pathlib import Path
from typing import Any

import yaml

from tests.integration.deploy.live import JOB
from tests.integration.deploy.tools import DEPLOY, needed
from tests.integration.docs.markdown import blocks
from tests.integration.processes import ROOT, run

RULES = DEPLOY / "prometheus/alerts.yml"
RULE_TESTS = DEPLOY / "prometheus/alerts_test.yml"


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_prometheus_takes_the_rules() -> None:
    promtool = needed("promtool", "the alerts are not checked; scripts/install_promtool.sh")
    run(promtool, "check", "rules", RULES)


def test_the_alerts_fire_when_they_should() -> None:
    promtool = needed("promtool", "the alerts are not tested; scripts/install_promtool.sh")
    run(promtool, "test", "rules", RULE_TESTS)


def test_prometheus_takes_the_configuration_of_the_document(tmp_path: Path) -> None:
    promtool = needed("promtool", "the configuration is not checked; scripts/install_promtool.sh")
    shown_blocks = (block.text for block in blocks(ROOT / "docs/deploy.md"))
    (shown,) = [text for text in shown_blocks if text.startswith("rule_files:")]
    config = tmp_path / "prometheus.yml"
    config.write_text(shown.replace("/etc/prometheus/kvblock-alerts.yml", str(RULES)))
    run(promtool, "check", "config", config)
    (job,) = yaml.safe_load(shown)["scrape_configs"]
    assert job["job_name"] == JOB
    assert f'metrics_listen = "{job["static_configs"][0]["targets"][0]}"' in (
        (DEPLOY / "kvblock.toml").read_text()
    )


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"].keys() == {"severity"}, alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert alert["annotations"].keys() == {"summary", "description", "action"}, alert["alert"]
        assert "$labels.instance" in alert["annotations"]["summary"], alert["alert"]


def test_each_alert_is_seen_silent_and_firing() -> None:
    written = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    seen: dict[str, set[bool]] = {}
    for one in written:
        for check in one.get("promql_expr_test", ()):
            firing = f'ALERTS{{alertname="{one["name"]}", alertstate="firing"}}'
            assert check["expr"] == firing
            seen.setdefault(one["name"], set()).add(bool(check["exp_samples"]))
    assert seen == {alert["alert"]: {False, True} for alert in alerts()}
