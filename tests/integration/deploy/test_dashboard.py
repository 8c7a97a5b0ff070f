"""deploy/grafana and the alerts against a real server: what they ask for is there.

Metrics, labels and values of labels are looked up in a scrape. Where Prometheus is there, it runs
every query, too.
"""

import json
import re
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tests import waiting
from tests.conftest import ServerFactory
from tests.integration.deploy.live import Series, busy_server, prometheus, series_of
from tests.integration.deploy.promql import Matcher, Selector, grouped_by, selectors
from tests.integration.deploy.test_alerts import RULES, alerts
from tests.integration.deploy.tools import DEPLOY, needed

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/kvblock.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$pool": ".*"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """The expression and the legend of each query, with values for the dashboard's variables."""
    return [
        (filled_in(target["expr"]), target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def filled_in(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


def variable_queries() -> list[tuple[str, str]]:
    """The selector and the label of each variable that lists the values of a label."""
    found = []
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            parts = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert parts is not None, variable
            found.append((filled_in(parts[1]), parts[2]))
    return found


def wrong(expression: str, series: Series) -> list[str]:
    """What an expression asks for that no series has."""
    asked = selectors(expression)
    found = [
        f"{expression}: nothing fits {one}"
        for one in asked
        if not any(
            all(m.fits(labels) for m in one.matchers) for labels in series.get(one.metric, ())
        )
    ]
    known = {label for one in asked for labels in series.get(one.metric, ()) for label in labels}
    return found + [
        f"{expression}: no metric of it has {label}" for label in grouped_by(expression) - known
    ]


def test_what_dashboard_and_alerts_ask_for_is_in_a_scrape(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    with busy_server(server_factory, tmp_path) as server:
        series = series_of(server)
    asked = [expression for expression, _ in queries()]
    asked += [f"count by ({label}) ({selector})" for selector, label in variable_queries()]
    asked += [alert["expr"] for alert in alerts()]
    assert [problem for expression in asked for problem in wrong(expression, series)] == []


def test_prometheus_answers_every_query_and_evaluates_every_alert(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    program = needed("prometheus", "no query was run; scripts/install_promtool.sh fetches it")
    with (
        busy_server(server_factory, tmp_path) as server,
        prometheus(program, str(server.metrics_address), RULES, tmp_path) as running,
    ):
        for expression, legend in queries():
            waiting.happens(partial(running.query, expression))
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
            for result in running.query(expression):
                assert shown <= result["metric"].keys(), (expression, legend, result["metric"])
        waiting.happens(lambda: all(rule["health"] != "unknown" for rule in running.rules()))
        evaluated = {
            rule["name"]: (rule["health"], rule.get("lastError")) for rule in running.rules()
        }
    assert evaluated == {alert["alert"]: ("ok", None) for alert in alerts()}


def test_expressions_are_read() -> None:
    text = (
        'sum by (le, a) (rate(x_bucket{b="1", c!~"2"}[5m] offset 1h)) / on (d) y unless z{} > 0.5'
    )
    assert selectors(text) == [
        Selector("x_bucket", (Matcher("b", "=", "1"), Matcher("c", "!~", "2"))),
        Selector("z", ()),
        Selector("y", ()),
    ]
    assert grouped_by(text) == {"le", "a", "d"}


def test_what_is_missing_is_found() -> None:
    series: Series = {"x": [{"a": "1"}]}
    assert wrong('sum by (a) (rate(x{a=~"1|2"}[1m]))', series) == []
    for text in ("y", "sum(y)", 'x{a="2"}', 'x{b="1"}', 'x{b!="1"}', "sum by (b) (x)"):
        assert wrong(text, series), text


def test_panels_say_what_they_show_and_stand_apart() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
