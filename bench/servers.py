"""A store server of its own for a bench, with its flushes to the disk on, and gone when the bench is done.

Started through the tests' own launcher, as a process: what is measured shares nothing with it but the machine.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

KINDS = ("sqlite", "etcd3.4", "etcd3.5", "consul", "zookeeper")
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
URL = re.compile(r"\b(?:etcd|consul|zk)://\S+")


@contextlib.contextmanager
def store(kind: str, members: int = 1) -> Iterator[str]:
    """The URL of an empty store: a file for sqlite, a cluster of `members` for the others."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
            yield f"sqlite://{folder}/kvnet.db"
        return
    command = [sys.executable, "-m", "tests.servers", kind, "--members", str(members)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _url_of(process, kind)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _url_of(process: subprocess.Popen[str], kind: str) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while waiting.select(deadline - time.monotonic()):
            line = process.stdout.readline()
            if found := URL.search(line):
                return found[0]
            if not line:
                break
    raise RuntimeError(f"{kind} did not start within {START_TIMEOUT_S:g} s; its words are above")
