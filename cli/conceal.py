"""Hides the passwords of URLs on this process's own command line, so that `ps` does not show them to everybody.

The kernel shows `/proc/PID/cmdline` from the process's memory, so what is overwritten there is gone. Linux only and as
good as it can be: between the start and this there is a moment, and a secret is safer in a file or the environment.
Never fails: a command that cannot hide is still run.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

# scheme://user:secret@ within one argument; arguments end with a zero byte.
_SECRET = re.compile(rb"(?<=://)([^/?#@:\0]*:)([^/?#\0]+)(?=@)")
_STAT = Path("/proc/self/stat")
_MEMORY = Path("/proc/self/mem")
ARG_START = 47  # fields of proc(5) stat, counted from zero
ARG_END = 48


def hide_secrets() -> None:
    """Every character of every secret becomes an asterisk; the arguments that Python has stay as they are."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field is the command's name in parentheses, and may hold spaces and parentheses itself.
        fields = _STAT.read_text().rpartition(")")[2].split()
        start, end = (int(fields[number - 2]) for number in (ARG_START, ARG_END))
        with _MEMORY.open("r+b", buffering=0) as memory:
            memory.seek(start)
            shown = memory.read(end - start)
            hidden = _SECRET.sub(lambda found: found[1] + b"*" * len(found[2]), shown)
            if hidden != shown:
                memory.seek(start)
                memory.write(hidden)
