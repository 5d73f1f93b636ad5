"""What is scraped, what is documented, what the dashboard draws and what alerts ask for are the same metrics."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.conftest import ROOT, Scrapes

DOCS = ROOT / "docs/observability.md"
DASHBOARD = ROOT / "packaging/grafana/kvnet.json"
ALERTS = ROOT / "packaging/prometheus/alerts.yml"
NAME = re.compile(r"\b((?:kvnet|process)_[a-z0-9_]+)\b")
PARTS = ("_bucket", "_sum", "_count")
LIMITS = {"process_max_fds", "process_virtual_memory_bytes"}  # of every process, and nothing of ours

pytestmark = pytest.mark.kernel


def told(text: str) -> set[str]:
    """The names as they are written in queries: a counter's with `_total`, a histogram's without its parts."""
    found = set()
    for family in text_string_to_metric_families(text):
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return found


def asked(expression: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", expression)
    names = set(NAME.findall(bare))
    return {next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name) for name in names}


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def alert_expressions() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_every_metric_is_documented_and_nothing_else_is(scrapes: Scrapes) -> None:
    rows = re.findall(r"^\| `((?:kvnet|process)_[a-z0-9_]+)` \|", DOCS.read_text(), re.MULTILINE)

    assert len(rows) == len(set(rows)), "documented twice"
    assert set(rows) == told(scrapes.both) - LIMITS


def test_the_dashboard_draws_metrics_that_there_are(scrapes: Scrapes) -> None:
    missing = {name for expression in expressions() for name in asked(expression)} - told(scrapes.both)

    assert not missing
    assert len(expressions()) > 40


def test_alerts_ask_for_metrics_that_there_are(scrapes: Scrapes) -> None:
    missing = {name for expression in alert_expressions() for name in asked(expression)} - told(scrapes.both)

    assert not missing


def test_the_dashboard_shows_every_metric_of_a_controller_and_a_worker_but_a_few(scrapes: Scrapes) -> None:
    drawn = {name for expression in expressions() for name in asked(expression)}
    left_out = {name for name in told(scrapes.both) - drawn if name.startswith("kvnet_")}

    assert left_out <= {
        "kvnet_host_last_seen_timestamp_seconds",
        "kvnet_convergence_lag_revisions",
        "kvnet_convergence_lagging",
        "kvnet_host_alive",
        "kvnet_store_doubted",
        "kvnet_audit_broken",
        "kvnet_worker_mode",
        "kvnet_worker_session_held",
        "kvnet_worker_store_revision",
        "kvnet_worker_networks",
        "kvnet_worker_lag_max_seconds",
        "kvnet_worker_conditions",
        "kvnet_worker_docker_reachable",
    }


def test_panels_have_titles_units_and_places_that_do_not_overlap() -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_query_of_the_dashboard_is_one(promtool: Path, tmp_path: Path) -> None:
    plain = [re.sub(r"\$__rate_interval", "5m", one) for one in expressions()]
    rules = [{"record": f"kvnet:query:{i}", "expr": one} for i, one in enumerate(plain)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("process", ["controller", "worker"])
def test_names_and_help_are_as_prometheus_wants_them(promtool: Path, scrapes: Scrapes, process: str) -> None:
    text = getattr(scrapes, process)

    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
