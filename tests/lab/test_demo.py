"""The demo as a newcomer meets it: one command, a report, nothing left behind however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

COMMAND = (sys.executable, "-m", "cli.main", "demo")
PATIENCE_SECONDS = 60.0


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo makes its directory, and nobody else makes anything."""
    # Not pytest's own: socket files have at most 107 bytes of path.
    with tempfile.TemporaryDirectory(prefix="kv") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def running(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that stays up, once it has said that Ctrl-C ends it."""
    demo = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    for line in demo.stderr:
        if "Ctrl-C" in line:
            break
    yield demo
    demo.kill()
    demo.wait(PATIENCE_SECONDS)
    demo.stderr.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the demo's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def test_once_reports_as_json_that_every_workload_reaches_every_other(temporary: Path) -> None:
    demo = subprocess.run(
        [*COMMAND, "--once", "--json"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )

    assert demo.returncode == 0, demo.stderr
    report = json.loads(demo.stdout)
    assert report["ok"] is True
    assert (report["hosts"], report["store"]) == (3, "sqlite")
    assert report["network"]["name"] == "demo"
    assert {e["host"] for e in report["endpoints"]} == {"h1", "h2", "h3"}
    families = {(p["from"], p["to"], ":" in p["address"]) for p in report["pings"] if p["ok"] and p["rtt_ms"] > 0}
    names = ("c1", "c2", "c3")
    assert families == {(a, b, six) for a in names for b in names if a != b for six in (False, True)}
    assert report["seconds_to_first_ping"] > 0
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


def test_ctrl_c_ends_it_and_leaves_nothing_behind(running: subprocess.Popen[str], temporary: Path) -> None:
    running.send_signal(signal.SIGINT)

    assert running.wait(PATIENCE_SECONDS) == 0
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_a_killed_demo_leaves_no_process_and_no_file_behind(running: subprocess.Popen[str], temporary: Path) -> None:
    running.kill()

    until(lambda: not processes_of(temporary), "its processes end with it")
    until(lambda: not list(temporary.iterdir()), "its directory is gone")


def test_more_hosts_than_it_can_make_are_refused_before_anything_starts(temporary: Path) -> None:
    demo = subprocess.run([*COMMAND, "--hosts", "1"], capture_output=True, text=True, timeout=30, check=False)

    assert demo.returncode != 0
    assert "2 to 50" in demo.stderr
    assert list(temporary.iterdir()) == []
