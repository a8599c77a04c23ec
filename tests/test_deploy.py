"""deploy/: the dashboard and the rules of Prometheus. Every expression parses, and every metric in them exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from mesh.core.metrics.instruments import ANSWERS, HISTOGRAM, INSTRUMENTS
from mesh.operations.deployment.manifests import HTTP_PORT

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
CONFIG = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}
COMPOSE = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
OF_A_SCRAPE = {"job", "instance"}
"""Labels that Prometheus adds to every series."""
OF_PROMETHEUS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Place and text of each expression; variables of Grafana have a value, as when it asks."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "1m").replace("$agent", "echo|other")
                yield f"{name} {panel['title']}", text


def selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of a metric below a node."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if isinstance(inner := getattr(node, name, None), promql_parser.Expr):
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


def labels_of(metric: str) -> set[str] | None:
    """Labels of a series; None: no process has such a series."""
    if metric in OF_PROMETHEUS:
        return OF_A_SCRAPE
    base = re.sub("_(bucket|sum|count)$", "", metric)
    found = INSTRUMENTS.get(metric) or INSTRUMENTS.get(base)
    if found is None or (found.kind == HISTOGRAM) != (base != metric):
        return None
    return {*found.labels, *OF_A_SCRAPE, *(("le",) if metric.endswith("_bucket") else ())}


@pytest.mark.parametrize(("place", "text"), list(expressions()))
def test_every_expression_parses_and_names_what_exists(place: str, text: str) -> None:
    found = list(selectors(promql_parser.parse(text)))
    assert {each.name for each in found} == set(re.findall(r"\b(?:mesh|process)_[a-z_]+\b|\bup\b", text))
    known: set[str] = set()
    for each in found:
        labels = labels_of(each.name or "")
        assert labels is not None, each.name
        known |= labels
        assert {matcher.name for matcher in each.matchers.matchers} <= labels
    for names in re.findall(r"\bby \(([^)]*)\)", text):
        assert {name.strip() for name in names.split(",")} <= known


def test_the_check_finds_a_metric_that_does_not_exist() -> None:
    assert labels_of("mesh_runs_lost_total") is None
    assert labels_of("mesh_queue_wait_seconds") is None
    assert labels_of("mesh_runs_open_bucket") is None


def test_outcomes_in_expressions_are_counted_ones() -> None:
    named = [names for _, text in expressions() for names in re.findall(r'outcome!?=~"([^"]*)"', text)]
    assert named
    assert {name for names in named for name in names.split("|")} <= set(ANSWERS)


def test_alerts_say_what_happened_and_where_to_look() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 10
    for rule in alerts():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_whole_table_is_on_the_dashboard() -> None:
    shown = " ".join(text for place, text in expressions() if place.startswith("agent-mesh.json"))
    assert [name for name in INSTRUMENTS if name not in shown] == []


def test_panels_lie_side_by_side() -> None:
    for board in BOARDS.values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken
            taken |= cells


def test_prometheus_finds_the_containers_of_compose() -> None:
    (job,) = CONFIG["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert CONFIG["rule_files"] == ["alerts.yml"]
    assert found["port"] == HTTP_PORT
    assert all(COMPOSE["services"][name]["command"] == ["up", name] for name in found["names"])
    assert f'job="{job["job_name"]}"' in alerts()[0]["expr"]
