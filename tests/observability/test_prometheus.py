"""The dashboard's queries and the alerts, asked of a real Prometheus that has scraped what real processes tell."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.observability.conftest import ROOT, Scrapes
from tests.observability.test_metrics import expressions

PROMETHEUS = ROOT / ".tools/prometheus/root/usr/bin/prometheus"
SECONDS = 30.0
# What a moment with one attach and no trouble has no figures of.
QUIET = (
    "failures",
    "docker",
    "dns",
    "detach",
    "repairs",
    "errors_total",
    "questions",
    "problems",
    "_lag_seconds{host",
    'outcome!="done"',
)

pytestmark = pytest.mark.kernel


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def query(self, expression: str) -> list[Any]:
        answer = self.ask("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


@pytest.fixture(scope="module")
def prometheus(scrapes: Scrapes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    with serving({"/controller": scrapes.controller, "/worker": scrapes.worker}) as port:
        file = directory / "prometheus.yml"
        jobs = [
            {
                "job_name": f"kvnet-{one}",
                "metrics_path": f"/{one}",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
            for one in ("controller", "worker")
        ]
        file.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(ROOT / "packaging/prometheus/alerts.yml")],
                    "scrape_configs": jobs,
                }
            )
        )
        own = free_port()
        command = [PROMETHEUS, f"--config.file={file}", f"--storage.tsdb.path={directory}/data"]
        command += [f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn"]
        with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                made = Prometheus(f"http://127.0.0.1:{own}")
                until_scraped(made, directory / "log")
                yield made
            finally:
                process.terminate()


@contextmanager
def serving(texts: dict[str, str]) -> Iterator[int]:
    """Texts by path over HTTP, as a controller and a worker would serve them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(texts[self.path].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_port
    server.server_close()
    return port


def until_scraped(prometheus: Prometheus, log: Path) -> None:
    """Often enough that a rate can be told."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            found = prometheus.query("min(count_over_time(up[1m]))")
        except OSError:
            found = []
        if found and float(found[0]["value"][1]) >= 4:
            return
        time.sleep(0.2)
    pytest.fail(f"Prometheus did not scrape: {log.read_text()}")


def test_both_are_scraped_without_a_complaint(prometheus: Prometheus) -> None:
    targets = prometheus.ask("/api/v1/targets")["data"]["activeTargets"]

    assert {(target["labels"]["job"], target["health"], target["lastError"]) for target in targets} == {
        ("kvnet-controller", "up", ""),
        ("kvnet-worker", "up", ""),
    }


def test_every_panel_has_something_to_draw(prometheus: Prometheus) -> None:
    empty = []
    for expression in expressions():
        plain = re.sub(r"\$(host|worker|controller)", ".*", expression).replace("$__rate_interval", "1m")
        if not prometheus.query(plain) and not any(word in plain for word in QUIET):
            empty.append(plain)

    assert not empty


def test_the_alerts_are_loaded_and_quiet(prometheus: Prometheus) -> None:
    groups = prometheus.ask("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert len(rules) == 26
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
