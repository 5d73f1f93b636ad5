"""What a command may load: help must be instant, and no client command pays for the server."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

SERVER = ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "controller", "worker", "backends", "lab")
CLIENT_LIBRARY = ("httpx2", "asyncio", "ssl", "yaml", "rich")
HELP_MS = 150
NOBODY = "http://127.0.0.1:9"

LOADED_BY = """
import json, sys
sys.argv = ["kvnet", *{arguments!r}]
from cli.main import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_loaded_by(*arguments: str) -> set[str]:
    code = LOADED_BY.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["network", "--help"], ["network", "create", "--help"], ["worker", "-h"]]
)
def test_help_loads_neither_the_server_nor_the_client_library(arguments: list[str]) -> None:
    assert not modules_loaded_by(*arguments) & {*SERVER, *CLIENT_LIBRARY}


@pytest.mark.parametrize(
    "arguments",
    [
        ["network", "ls"],
        ["network", "create", "x"],
        ["network", "prune"],
        ["endpoint", "ls"],
        ["host", "ls"],
        ["pool", "ls"],
        ["ipam", "show"],
        ["status"],
        ["check"],
        ["events"],
        ["version"],
        ["plan"],
        ["attach", "x", "--netns", "y"],
        ["completion", "bash"],
    ],
)
def test_no_client_command_loads_the_server(arguments: list[str]) -> None:
    loaded = modules_loaded_by("--controller", NOBODY, "--socket", "/nowhere.sock", *arguments)

    assert not loaded & set(SERVER)


@pytest.mark.parametrize("arguments", [["plan"], ["attach", "x", "--netns", "y"]])
def test_commands_to_the_worker_do_without_the_http_library(arguments: list[str]) -> None:
    assert "httpx2" not in modules_loaded_by("--socket", "/nowhere.sock", *arguments)


def test_help_answers_at_once() -> None:
    """The best of several, because the machine has other things to do as well."""
    took_ms = []
    for _ in range(8):
        started_at = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli.main", "--help"], capture_output=True, timeout=30, check=True)
        took_ms.append((time.perf_counter() - started_at) * 1000)
        if took_ms[-1] < HELP_MS:
            break

    assert min(took_ms) < HELP_MS
