"""What a command may load: help must be instant, and nothing pays for what it does not use."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.cli.loading import SERVER, modules_loaded_by, tops

CLIENT_LIBRARY = ("httpx2", "asyncio", "ssl", "yaml", "rich")
HELP_MS = 150
NOBODY = "/nowhere.sock"


def test_help_loads_neither_the_server_nor_the_client_library() -> None:
    loaded = modules_loaded_by(
        ["--help"], ["--version"], ["network", "-h"], ["network", "create", "-h"], ["worker", "-h"]
    )

    assert "cli.network" in loaded
    assert not tops(loaded) & {*SERVER, *CLIENT_LIBRARY}


def test_commands_to_the_worker_do_without_the_http_library_and_the_server() -> None:
    loaded = modules_loaded_by(["--socket", NOBODY, "plan"], ["--socket", NOBODY, "attach", "x", "--netns", "y"])

    assert "cli.plan" in loaded
    assert "cli.attach" in loaded
    assert not tops(loaded) & {*SERVER, "httpx2"}


def test_help_answers_at_once() -> None:
    """In processor time, the best of several: the wall clock would also measure what else the machine does."""
    took_ms = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "cli.main", "--help"], capture_output=True, timeout=30, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_ms.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000)
        if took_ms[-1] < HELP_MS:
            break

    assert min(took_ms) < HELP_MS
