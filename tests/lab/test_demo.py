"""The demo as a newcomer meets it: one command, a report, nothing left behind however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from backends.open import open_store
from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Host

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


def test_a_closed_terminal_ends_it_as_ctrl_c_does(running: subprocess.Popen[str], temporary: Path) -> None:
    running.send_signal(signal.SIGHUP)

    assert running.wait(PATIENCE_SECONDS) == 0
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_ctrl_c_before_the_report_ends_it_at_once(temporary: Path) -> None:
    demo = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    assert "joined by a fabric" in demo.stderr.readline()
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=PATIENCE_SECONDS)

    assert (demo.returncode, out) == (130, "")
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_a_killed_demo_leaves_no_process_and_no_file_behind(running: subprocess.Popen[str], temporary: Path) -> None:
    running.kill()

    until(lambda: not processes_of(temporary), "its processes end with it")
    until(lambda: not list(temporary.iterdir()), "its directory is gone")


def test_more_hosts_than_it_can_make_are_refused_before_anything_starts(temporary: Path) -> None:
    demo = subprocess.run([*COMMAND, "--hosts", "1"], capture_output=True, text=True, timeout=30, check=False)

    assert demo.returncode == 2
    assert "2 to 50" in demo.stderr
    assert list(temporary.iterdir()) == []


def once(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--once", *options], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def test_a_temporary_folder_too_deep_for_sockets_is_passed_over(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = temporary / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))

    demo = once()

    assert demo.returncode == 0, demo.stderr


@pytest.mark.anyio
async def test_a_given_store_keeps_no_trace_but_the_journal(temporary: Path) -> None:
    url = f"sqlite://{temporary}/site.db"

    demo = once("--store", url)

    assert demo.returncode == 0, demo.stderr
    store = await open_store(url)
    try:
        left = {entry.key for entry in (await store.list("")).entries}
    finally:
        await store.close()
    assert {key.split("/")[0] for key in left} - {"seals"} == {"meta", "pools", "guards", "journal"}


@pytest.mark.anyio
async def test_a_store_that_knows_a_host_of_a_needed_name_is_refused_and_left_alone(temporary: Path) -> None:
    url = f"sqlite://{temporary}/site.db"
    record = codec.encode(Host("h2", IPv4Address("192.0.2.2"), mtu=1500))
    store = await open_store(url)
    try:
        await store.commit([], [Put(keys.host("h2"), record)])
    finally:
        await store.close()

    demo = once("--store", url)

    assert demo.returncode == 1
    assert "knows hosts of the names that the demo needs: h2" in demo.stderr
    store = await open_store(url)
    try:
        kept = await store.get(keys.host("h2"))
        assert kept is not None
        assert kept.value == record
        assert (await store.list("networks/")).entries == ()
    finally:
        await store.close()


def test_a_store_that_cannot_be_used_is_told_at_once(temporary: Path) -> None:
    began = time.monotonic()

    demo = once("--store", f"sqlite://{temporary}/nowhere/kvnet.db")

    assert demo.returncode != 0
    assert "is not a directory" in demo.stderr
    assert time.monotonic() - began < 15
