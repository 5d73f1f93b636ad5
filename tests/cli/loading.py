"""What a command loads, seen from outside: modules of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

SERVER = ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "controller", "worker", "backends", "lab")

LOADED_BY = """
import json, sys
from cli.main import main
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit:
        pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_loaded_by(*command_lines: list[str]) -> set[str]:
    """What is loaded after these commands have run, one after another in one process of their own."""
    command = [sys.executable, "-c", LOADED_BY, json.dumps(command_lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}
