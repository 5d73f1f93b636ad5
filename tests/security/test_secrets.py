"""Secrets that can be recognised are put in wherever they can come in, and looked for wherever anything comes out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backends.open import open_store

pytestmark = pytest.mark.kernel

KVNET = (sys.executable, "-m", "cli.main")
CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 90.0
PASSWORD = "planted-store-password-0a1b2c3d"
OTLP = "planted-otlp-header-5e6f7a8b"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6InBsYW50ZWQifQ.eyJzdWIiOiJwbGFudGVkLXN1YmplY3QifQ.cGxhbnRlZC1zaWduYXR1cmUtOWMwZA"
STRAY = "kvnet_0123456789ab_" + "PlantedStraySecretThatNobodyMade0123456789A"
IN_A_HOST = (
    "ip link set lo up && ip link add u0 type veth peer name u1 && ip addr add 10.9.9.1/24 dev u0"
    ' && ip link set u0 up && ip link set u1 up && exec "$@"'
)


@dataclass
class Planted:
    """`secrets`: what must not come out, by what it is. `told`: all that came out, by where."""

    folder: Path
    secrets: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def token(self, what: str, text: str) -> str:
        """Of a token the id is public."""
        self.secrets[what] = text.strip().rpartition("_")[2] if text.startswith("kvnet_") else text.strip()
        return text.strip()

    def leaks(self) -> list[str]:
        assert len(self.secrets) >= 8, sorted(self.secrets)
        return [
            f"{what} in {where}: ...{text[max(0, text.index(secret) - 80) : text.index(secret) + 8]}..."
            for where, text in self.told.items()
            for what, secret in self.secrets.items()
            if secret and secret in text
        ]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


@contextmanager
def running(log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def run(*arguments: str, **environment: str) -> str:
    """All that a command says."""
    done = subprocess.run(
        [*KVNET, *arguments], cwd=CHECKOUT, capture_output=True, timeout=DEADLINE_S, env={**os.environ, **environment}
    )
    return (done.stdout + done.stderr).decode()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def of_process(process: subprocess.Popen[bytes]) -> str:
    """What `ps` and its relatives show of it."""
    place = Path(f"/proc/{process.pid}")
    return ((place / "cmdline").read_bytes() + (place / "environ").read_bytes()).replace(b"\0", b"\n").decode()


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes spans in, as an OTLP collector does."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()


def test_no_secret_comes_out_of_a_cluster_anywhere(planted: Planted) -> None:
    folder = planted.folder
    store, unix = f"sqlite://{folder}/kvnet.db", folder / "c.sock"
    planted.secrets |= {"store password": PASSWORD, "otlp header": OTLP, "jwt": JWT.rpartition(".")[2]}
    planted.token("stray token", STRAY)
    with collector() as (otlp, spans):
        environment = {
            "KVNET_STORE_PASSWORD": PASSWORD,
            "KVNET_TOKEN": STRAY,
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={OTLP}",
        }
        command = (*KVNET, "controller", "--store", store, "--listen", "127.0.0.1:0", "--listen-unix", str(unix))
        with running(folder / "controller.log", *command, "--log-level", "debug", **environment) as controller:
            until(unix.exists)
            until(lambda: "upkeep-begins" in (folder / "controller.log").read_text())
            admin = _tokens(planted, f"unix://{unix}")
            with _client(unix) as http:
                _requests(planted, http, admin)
                _a_host(planted, f"unix://{unix}", admin)
                _answers(planted, http, admin)
            planted.told["ps of the controller"] = of_process(controller)
            _commands(planted, f"unix://{unix}")
    planted.told["spans"] = b"".join(spans).decode("latin-1")
    planted.told["log of the controller"] = (folder / "controller.log").read_text()
    planted.told["store"] = _whole(store)
    planted.told["backup"] = run("backup", "-", "--store", store)
    planted.told["backup with secrets"] = run("backup", "-", "--store", store, "--with-secrets")

    assert spans, "nothing was traced"
    assert '"event":"request"' in planted.told["log of the controller"]
    assert "kvnet_backup" in planted.told["backup"]
    assert planted.leaks() == []


def _tokens(planted: Planted, url: str) -> str:
    """An admin's, one that is rotated, and the files they are in."""
    made = {}
    for name, role in (("root", "admin"), ("alice", "operator"), ("bob", "viewer")):
        out = planted.folder / f"{name}.token"
        said = run("--controller", url, "token", "create", name, "--role", role, "--out", str(out))
        planted.told[f"kvnet token create {name}"] = said
        made[name] = planted.token(f"token of {name}", out.read_text())
    again = planted.folder / "alice.new"
    planted.told["kvnet token rotate"] = run(
        "--controller", url, "token", "rotate", "alice", "--grace", "60", "--out", str(again)
    )
    planted.token("rotated token of alice", again.read_text())
    return made["root"]


def _client(unix: Path) -> httpx2.Client:
    return httpx2.Client(base_url="http://kvnet", transport=httpx2.HTTPTransport(uds=str(unix)), timeout=DEADLINE_S)


def _requests(planted: Planted, http: httpx2.Client, admin: str) -> None:
    """Credentials that are good, wrong, and where none belongs; what is answered to those is looked through."""
    secret = {"authorization": f"Bearer {admin}"}
    assert http.post("/v1/networks", json={"name": "my-net"}, headers=secret).status_code == 201
    for n, headers in enumerate(
        (
            {"authorization": f"Bearer {STRAY}"},
            {"authorization": f"Bearer {JWT}"},
            {"authorization": f"Basic {STRAY}"},
            {"cookie": f"kvnet_session={STRAY}"},
            {**secret, "x-request-id": STRAY, "x-kvnet-actor": STRAY},
            {**secret, "x-request-id": STRAY},
            {**secret, "if-match": STRAY},
            {**secret, "traceparent": STRAY},
        )
    ):
        for method, path in (("GET", "/v1/networks"), ("DELETE", f"/v1/networks/{STRAY}")):
            answer = http.request(method, path, headers=headers)
            planted.told[f"answer to headers {n} {method}"] = answer.text + str(answer.headers)
    for place in (f"/v1/networks/{STRAY}", f"/v1/{STRAY}", f"/v1/hosts/{STRAY}", f"/{STRAY}", f"/problems/{STRAY}"):
        planted.told[f"answer to {place[:12]}"] = http.get(place, headers=secret).text
    for query in (f"token={STRAY}", f"{STRAY}=1", f"cursor={STRAY}", f"network={STRAY}", f"access_token={JWT}"):
        for path in ("/v1/networks", "/v1/endpoints", "/v1/journal", "/v1/events", "/v1/audit/verify"):
            planted.told[f"answer to {path}?{query[:10]}"] = http.head(f"{path}?{query}", headers=secret).text
            answer = http.get(f"{path}?{query}", headers=secret) if path != "/v1/events" else None
            planted.told[f"answer to {path}?{query[:9]}"] = answer.text if answer else ""
    for n, body in enumerate(
        (
            json.dumps({"name": STRAY}),
            json.dumps({STRAY: 1}),
            json.dumps({"name": "x", "token": STRAY}),
            json.dumps({"name": "x", "driver": STRAY}),
            json.dumps({"name": "x", "subnets": [{"cidr": STRAY}]}),
            f'{{"token": "{STRAY}"',
            STRAY,
            json.dumps([STRAY]),
            json.dumps({"token": [STRAY]}),
            json.dumps({"token": STRAY, "token2": STRAY}),
            json.dumps({"token": STRAY}),
            json.dumps({"token": STRAY, "host": "h9", "hash": STRAY}),
        )
    ):
        for path in ("/v1/networks", "/v1/login", "/v1/join", "/v1/tokens", "/v1/networks/my-net/endpoints"):
            headers = {**secret, "content-type": "application/json"}
            planted.told[f"answer to body {n} at {path}"] = http.post(path, content=body, headers=headers).text
    login = http.post("/v1/login", json={"token": admin})
    planted.told["login"] = login.text
    cookie = re.search(r"kvnet_session=([^;]+)", login.headers["set-cookie"])
    assert cookie
    planted.secrets["cookie"] = cookie[1].rpartition(".")[2]
    logged_in = {"cookie": f"kvnet_session={cookie[1]}", "x-kvnet-csrf": "1"}
    assert http.post("/v1/networks", json={"name": "by-cookie"}, headers=logged_in).status_code == 201


def _a_host(planted: Planted, url: str, admin: str) -> None:
    """A host joins, its worker runs and examines itself."""
    folder = planted.folder
    join, socket, state = folder / "h1.join", folder / "w.sock", folder / "state"
    token = ("--controller", url, "--token-file", str(folder / "root.token"))
    planted.told["kvnet host join-token"] = run(*token, "host", "join-token", "h1", "--out", str(join))
    planted.token("join token", join.read_text())
    planted.told["kvnet worker join"] = run(
        *("worker", "join", "--controller", url, "--token-file", str(join), "--host", "h1", "--state-dir", str(state))
    )
    planted.token("token of the host", (state / "identity" / "token").read_text())
    command = ("unshare", "-n", "sh", "-c", IN_A_HOST, "sh", *KVNET, "worker", "--controller", url, "--host", "h1")
    more = ("--underlay", "10.9.9.1", "--state-dir", str(state), "--socket", str(socket), "--log-level", "debug")
    with running(folder / "worker.log", *command, *more) as worker:
        until(lambda: socket.exists() or worker.poll() is not None)
        until(lambda: "h1" in run(*token, "host", "ls", "-q"))
        planted.told["ps of the worker"] = of_process(worker)
        planted.told["doctor"] = run("--socket", str(socket), "doctor", "-o", "json")
        planted.told["doctor over the controller"] = run(*token, "doctor", "--host", "h1", "-o", "json")
    planted.told["log of the worker"] = (folder / "worker.log").read_text()
    assert '"component":"worker"' in planted.told["log of the worker"]
    assert admin


def _answers(planted: Planted, http: httpx2.Client, admin: str) -> None:
    """All that can be asked for by somebody who may see everything."""
    headers = {"authorization": f"Bearer {admin}"}
    for path in (
        *("/metrics", "/v1/audit/export", "/v1/journal?limit=500", "/v1/audit/seals", "/v1/tokens", "/v1/whoami"),
        *("/v1/status", "/v1/hosts", "/v1/networks", "/readyz?verbose", "/v1/store-state", "/openapi.json", "/"),
    ):
        answer = http.get(path, headers=headers)
        assert answer.status_code == 200, path
        planted.told[path] = answer.text
    with http.stream("GET", "/v1/events?since=0", headers=headers) as stream:
        told = []
        for line in stream.iter_lines():
            told.append(line)
            if "bookmark" in line:
                break
    planted.told["/v1/events"] = "\n".join(told)
    assert "token.created" in planted.told["/v1/audit/export"]


def _commands(planted: Planted, url: str) -> None:
    """Commands that fail over what holds a secret."""
    token = ("--controller", url, "--token-file", str(planted.folder / "root.token"))
    planted.told["kvnet token ls"] = run(*token, "token", "ls", "-o", "json")
    planted.told["kvnet audit ls"] = run(*token, "audit", "ls", "--limit", "500", "-o", "json")
    planted.told["a wrong token"] = run("--controller", url, "network", "ls", KVNET_TOKEN=STRAY)
    planted.told["a name that is none"] = run(*token, "network", "create", STRAY)
    planted.told["an unknown thing"] = run(*token, "network", "inspect", STRAY)


@pytest.mark.parametrize("scheme", ["etcd", "consul", "zk"])
def test_the_password_of_a_store_that_does_not_answer_is_told_nowhere(planted: Planted, scheme: str) -> None:
    planted.secrets |= {f"secret {n}": f"{PASSWORD}-{n}" for n in range(9)}
    file = planted.folder / "password"
    file.write_text(f"{PASSWORD}-1\n")
    word = "token_file" if scheme == "consul" else "password_file"
    variable = "KVNET_STORE_TOKEN" if scheme == "consul" else "KVNET_STORE_PASSWORD"
    for n, (url, environment) in enumerate(
        (
            (f"{scheme}://kvnet:{PASSWORD}-2@127.0.0.1:1/x", {}),
            (f"{scheme}://kvnet@127.0.0.1:1/x?{word}={file}", {}),
            (f"{scheme}://kvnet@127.0.0.1:1/x", {variable: f"{PASSWORD}-3"}),
        )
    ):
        log = planted.folder / f"{n}.log"
        options = ("--store", url, "--listen", "127.0.0.1:0", "--log-level", "debug")
        with running(log, *KVNET, "controller", *options, **environment) as process:
            until(lambda log=log, process=process: bool(log.read_text()) or process.poll() is not None)  # type: ignore[misc]
            planted.told[f"ps {n}"] = of_process(process)
        planted.told[f"log {n}"] = log.read_text()
        planted.told[f"backup {n}"] = run("backup", "-", "--store", url, **environment)
    for n, url in enumerate(
        (f"{scheme}://u:{PASSWORD}-4@[/x", f"{scheme}://u:{PASSWORD}-5@h/x?nothing=1", f"u:{PASSWORD}-6@h")
    ):
        planted.told[f"a URL that is none {n}"] = run("controller", "--store", url, "--listen", "127.0.0.1:0")

    assert planted.leaks() == []


def test_a_private_key_is_told_nowhere_whatever_is_wrong_with_it(planted: Planted) -> None:
    folder = planted.folder
    run("ca", "init", str(folder / "ca"))
    keys: Mapping[str, str] = {
        path.name: "".join(path.read_text().splitlines()[1:-1])
        for path in (folder / "ca").rglob("*")
        if "PRIVATE" in _text(path)
    }
    assert keys
    planted.secrets |= {f"{name} {n}": text[n * 40 : n * 40 + 30] for name, text in keys.items() for n in range(4)}
    planted.secrets |= {f"filler {n}": f"{PASSWORD}-{n}" for n in range(8)}
    key = next(path for path in (folder / "ca").rglob("*") if path.name in keys)
    broken = folder / "broken.pem"
    broken.write_text(key.read_text()[:-60])
    store = f"sqlite://{folder}/kvnet.db"
    for n, options in enumerate(
        (
            ("--ca", str(folder / "ca")),
            ("--tls-cert", str(broken), "--tls-key", str(broken)),
            ("--tls-cert", str(key), "--tls-key", str(key)),
        )
    ):
        log = folder / f"{n}.log"
        command = ("controller", "--store", store, "--listen", "127.0.0.1:0", *options, "--log-level", "debug")
        with running(log, *KVNET, *command) as process:
            until(lambda log=log, process=process: "upkeep" in log.read_text() or process.poll() is not None)  # type: ignore[misc]
        planted.told[f"log {n}"] = log.read_text()

    assert planted.leaks() == []


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _whole(url: str) -> str:
    """Every byte that the store holds."""

    async def read() -> str:
        async with await open_store(url) as store:
            return "\n".join(f"{e.key} {e.value!r}" for e in (await store.list("")).entries)

    return asyncio.run(read())
