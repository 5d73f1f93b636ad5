"""Real shells with our completion loaded: what each offers after something was typed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2] / ".tools" / "shells" / "root"
LIBRARIES = ROOT / "usr" / "lib" / "x86_64-linux-gnu"

BASH = """
source <(kvnet completion bash)
COMP_LINE=$TYPED COMP_POINT=${#TYPED}
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_kvnet_completion kvnet 2>&1
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "kvnet completion fish | source; complete -C $TYPED"


def require(path: Path) -> Path:
    if not path.exists():
        raise AssertionError(f"{path} is not there: run tests/cli/install")
    return path


def environment(controller: str, **more: str) -> dict[str, str]:
    """With `kvnet` on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "KVNET_CONTROLLER": controller, "TERM": "dumb", **more}


def bash(typed: str, controller: str) -> list[str]:
    return _lines(["bash", "--norc", "-c", BASH], environment(controller, TYPED=typed))


def fish(typed: str, controller: str) -> list[str]:
    """Without the descriptions."""
    more = {"TYPED": typed, "LD_LIBRARY_PATH": str(LIBRARIES), "HOME": "/nonexistent"}
    program = str(require(ROOT / "usr" / "bin" / "fish"))
    found = _lines([program, "--no-config", "-c", FISH], environment(controller, **more))
    return [line.partition("\t")[0] for line in found]


def _lines(command: list[str], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return [line for line in done.stdout.splitlines() if line]


def zsh(typed: str, controller: str, wanted: str) -> str:
    """What stands on the terminal after the tab key, as soon as `wanted` is there, else when the deadline is over."""
    program = require(ROOT / ("bin" if (ROOT / "bin" / "zsh").exists() else "usr/bin") / "zsh")
    modules = next(LIBRARIES.glob("zsh/*"))
    functions = " ".join(str(p) for p in (ROOT / "usr/share/zsh/functions").rglob("*") if p.is_dir())
    begin = (
        f"module_path=({modules}); fpath=({functions}); autoload -U compinit; compinit -u -D; "
        "source <(kvnet completion zsh); echo RE''ADY\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execve(program, ["zsh", "-f", "-i"], environment(controller, PS1="> "))
    try:
        os.write(terminal, begin.encode())
        _until(terminal, "READY")
        os.write(terminal, f"{typed}\t".encode())
        return _until(terminal, wanted)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def _until(terminal: int, wanted: str) -> str:
    said, end = "", time.monotonic() + DEADLINE_S
    while wanted not in said and time.monotonic() < end:
        readable, _, _ = select.select([terminal], [], [], 0.1)
        if readable:
            said += os.read(terminal, 65536).decode(errors="replace")
    return said
