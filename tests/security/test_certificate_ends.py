"""A certificate that ends, or that is good for nothing any more, on a connection that was made before."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.security import authority
from kvnet.security import hash_of
from tests.security.secured import Secured, kvnet, own_ca, secured

DAY_S = 86_400.0
IN_TIME_S = 2.0
LIFE_S = 4.0


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def site(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("site"), "--ca", str(ca)) as made:
        yield made


@dataclass
class Held:
    """A certificate of a host, and the host's own token. `end`: when it ends."""

    site: Secured
    context: ssl.SSLContext
    token: str
    end: float
    id: str = ""

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        made = http.client.HTTPSConnection("127.0.0.1", self.site.port, timeout=10, context=self.context)
        try:
            yield made
        finally:
            made.close()


def held(site: Secured, ca: Path, host: str, life_s: float) -> Held:
    """Registered as a host does that brings a certificate of its own: by joining with it."""
    places, certificate = authority.issue_host(ca, host, time.time() - DAY_S + life_s, days=1)
    context = ssl.create_default_context(cafile=ca / "ca.pem")
    context.load_cert_chain(places.certificate, places.key)
    made = kvnet("--controller", site.url, "--ca-file", str(ca / "ca.pem"), "--token-file", str(site.admin),
                 "host", "join-token", host, "-o", "json")  # fmt: skip
    assert made.returncode == 0, made.stderr
    secret = secrets.token_urlsafe(32)
    found = Held(site, context, "", certificate.not_valid_after_utc.timestamp())
    with found.connection() as joining:
        body = {"token": json.loads(made.stdout)["token"], "hash": hash_of(secret)}
        status, answer = asked(joining, "POST", "/v1/join", body)
    assert status == 200, answer
    found.id, found.token = answer["id"], f"kvnet_{answer['id']}_{secret}"
    return found


def asked(
    connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None, token: str = ""
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def is_closed(connection: http.client.HTTPSConnection, within_s: float) -> bool:
    """By the other side."""
    assert connection.sock is not None
    connection.sock.settimeout(within_s)
    try:
        return connection.sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("bears_token", [False, True])
def test_an_idle_connection_ends_with_the_certificate_that_it_was_made_with(
    site: Secured, ca: Path, bears_token: bool
) -> None:
    mine = held(site, ca, f"h{1 + bears_token}", LIFE_S)
    with mine.connection() as connection:
        status, who = asked(connection, "GET", "/v1/whoami", token=mine.token if bears_token else "")
        assert (status, who["via"]) == (200, "token" if bears_token else "certificate")
        assert who["expires_at"], "it says when"

        assert is_closed(connection, mine.end - time.time() + IN_TIME_S)
        assert mine.end - 1.0 <= time.time()


def test_a_stream_ends_with_the_certificate(site: Secured, ca: Path) -> None:
    mine = held(site, ca, "h3", LIFE_S)
    with mine.connection() as connection:
        connection.connect()
        connection.sock.settimeout(mine.end - time.time() + IN_TIME_S)
        body = json.dumps({"prefix": "local/h3/", "after": 0})
        connection.request("POST", "/v1/store/watch", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        while answer.read1(4096):
            pass
        assert mine.end <= time.time() <= mine.end + IN_TIME_S


def test_a_request_whose_body_is_late_is_refused(site: Secured, ca: Path) -> None:
    """It was begun in time; what it wants is not done after the end."""
    mine = held(site, ca, "h4", LIFE_S)
    body = json.dumps({"key": "hosts/h4"})
    with mine.connection() as connection:
        connection.putrequest("POST", "/v1/store/get")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[:5].encode())
        wait_until(mine.end + 0.2)
        connection.send(body[5:].encode())
        answer = connection.getresponse()
        assert answer.status == 401
        assert answer.headers["connection"] == "close"


def test_a_credential_that_is_removed_is_refused_on_the_connection_that_it_has(site: Secured, ca: Path) -> None:
    mine = held(site, ca, "h5", DAY_S / 2)
    with mine.connection() as connection:
        assert asked(connection, "GET", "/v1/whoami")[0] == 200
        gone = kvnet("--controller", site.url, "--ca-file", str(ca / "ca.pem"), "--token-file", str(site.admin),
                     "token", "rm", "--yes", mine.id)  # fmt: skip
        assert gone.returncode == 0, gone.stderr

        assert asked(connection, "GET", "/v1/whoami")[0] == 401
        assert asked(connection, "GET", "/v1/whoami", token=mine.token)[0] == 401


def test_a_certificate_that_lasts_keeps_its_connection(site: Secured, ca: Path) -> None:
    mine = held(site, ca, "h6", DAY_S / 2)
    with mine.connection() as connection:
        for _ in range(3):
            assert asked(connection, "GET", "/v1/whoami")[0] == 200
            assert not is_closed(connection, 0.2)


def wait_until(moment: float) -> None:
    """A moment that a certificate names cannot be waited for otherwise."""
    time.sleep(max(0.0, moment - time.time()))
