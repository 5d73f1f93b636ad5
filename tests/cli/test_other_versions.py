"""A command that meets a controller of another version says so, and shows nobody its insides."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cli.world import KVNET


@contextmanager
def answering(status: int, body: dict[str, Any]) -> Iterator[str]:
    """Something that answers every request so."""

    class Always(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Always) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*KVNET, "--controller", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_an_answer_that_lacks_something_is_told_as_that() -> None:
    with answering(200, {"items": [{"id": "0123456789ab", "name": "app"}], "next_cursor": None, "revision": 1}) as url:
        done = run(url, "network", "ls")

    assert done.returncode == 5
    assert "does not answer as this command expects: its answer has no '" in done.stderr
    assert "kvnet version" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_the_controller_does_not_know_is_told_as_that() -> None:
    problem = {"code": "no-such-path", "status": 404, "title": "There is no such path", "detail": "there is nothing"}
    with answering(404, problem) as url:
        done = run(url, "network", "convergence", "app", "-o", "json")

    told = json.loads(done.stderr)
    assert done.returncode == 5
    assert told["code"] == "unexpected-answer"
    assert "there is nothing" in told["detail"]
