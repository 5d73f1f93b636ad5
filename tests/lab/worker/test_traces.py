"""Traces from real processes, as a collector gets them: one request's spans, from the API to each host's kernel."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kvnet.http import HttpClient, Target
from lab import namespaces
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
NETWORK = "my-net"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PORT = 4318


@dataclass(frozen=True)
class Span:
    service: str
    host: str
    name: str
    trace: str
    id: str
    parent: str
    facts: dict[str, object]


class Collector:
    """Takes OTLP over HTTP on any number of sockets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._servers: list[ThreadingHTTPServer] = []

    def listen(self, listening: socket.socket) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.server_name, server.server_port = "collector", listening.getsockname()[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            who = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    facts = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.spans.append(Span(who["service.name"], who.get("host.name", ""), span.name, *ids, facts))

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def listening_in(netns: Path) -> socket.socket:
    made = namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_STREAM, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", PORT))
    made.listen()
    return made


@pytest.fixture
async def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Lab, Collector]]:
    """The workers send to a collector on their own host, the controller to one on its own: they are the same."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        async with open_lab(tmp_path, hosts=2) as lab:
            own = socket.create_server(("127.0.0.1", 0))
            collector.listen(own)
            for host in lab.hosts.values():
                collector.listen(listening_in(host.netns))
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{own.getsockname()[1]}")
            await lab.start_controller()
            monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
            for name in lab.hosts:
                await lab.start_worker(name, "--otel")
            for name in lab.hosts:
                await lab.until_ready(name)
            await lab.client.create_network({"name": NETWORK, "driver": "overlay"})
            for workload, host in (("c1", "h1"), ("c2", "h2")):
                await lab.add_workload(workload, host)
                await lab.attach(NETWORK, workload)
            yield lab, collector


async def test_a_request_is_one_trace_from_the_api_to_every_kernel(traced: tuple[Lab, Collector]) -> None:
    lab, collector = traced
    client = HttpClient((Target.parse(f"unix://{lab.directory}/c.sock"),), {"content-type": "application/json"})
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "traced-1"}
    body = json.dumps({"name": "third", "host": "h1"}).encode()
    assert (await client.request("POST", f"/v1/networks/{NETWORK}/endpoints", body, 10.0, headers)).status == 201
    await client.close()

    async def is_told() -> bool:
        passes = {span.host for span in collector.of(TRACE) if span.name == "worker pass"}
        return passes == set(lab.hosts) and "store commit" in {span.name for span in collector.of(TRACE)}

    await until(is_told, "every span arrived", seconds=10.0)
    spans = {span.name: span for span in collector.of(TRACE)}
    asked = spans["POST /v1/networks/{network}/endpoints"]
    assert (asked.service, asked.parent, asked.facts["request_id"]) == ("kvnet-controller", SPAN, "traced-1")
    assert asked.facts["status"] == 201
    assert spans["store commit"].parent == asked.id
    for span in collector.of(TRACE):
        if span.name == "worker pass":
            assert (span.service, span.parent, span.facts["network"]) == ("kvnet-worker", asked.id, NETWORK)


async def test_an_attach_begins_a_trace_that_goes_on_at_the_controller(traced: tuple[Lab, Collector]) -> None:
    _, collector = traced

    def of_attach() -> list[Span]:
        return [span for span in collector.spans if span.name == "worker attach" and span.host == "h1"]

    async def is_told() -> bool:
        found = of_attach()
        return bool(found) and len({span.service for span in collector.of(found[0].trace)}) == 2

    await until(is_told, "the attach of c1 is told", seconds=10.0)
    names = {span.name for span in collector.of(of_attach()[0].trace)}
    assert names >= {"worker attach", "POST /v1/networks/{network}/endpoints", "store commit", "worker pass"}


def test_without_opentelemetry_it_says_so_and_otherwise_it_is_not_missed(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['opentelemetry.sdk'] = None; from cli.main import main; main()"
    command = ["controller", "--store", f"sqlite:///{tmp_path}/k.db", "--listen", "127.0.0.1:0"]

    done = subprocess.run(
        [sys.executable, "-c", hidden, *command, "--otel"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "OpenTelemetry is not installed" in done.stderr
    assert "Fix: pip install 'kvnet[otel]'" in done.stderr


def test_nobody_loads_opentelemetry_unasked() -> None:
    code = "import sys, worker.running, cli.worker; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_that_is_away_holds_nobody_up(tmp_path: Path) -> None:
    command = [*KVNET, "controller", "--store", f"sqlite:///{tmp_path}/k.db", "--listen", "127.0.0.1:0", "--otel"]
    environment = {**__import__("os").environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=6) == 0
