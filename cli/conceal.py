"""Hides secrets on this process's own command line and in its environment as the kernel shows them to others.

The kernel shows `/proc/PID/cmdline` and `/proc/PID/environ` from the process's memory, so what is overwritten there is
gone; and programs that are started from here inherit none of it. Linux only and as good as it can be: between the start
and this there is a moment, and a secret is safer in a file. Never fails: a command that cannot hide is still run.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

# scheme://user:secret@ within one argument; arguments end with a zero byte.
_SECRET = re.compile(rb"(?<=://)([^/?#@:\0]*:)([^/?#\0]+)(?=@)")
_NAMES = ("KVNET_TOKEN", "KVNET_STORE_PASSWORD", "KVNET_STORE_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS")
_VARIABLE = re.compile(rb"((?:^|\0)(?:%b)=)([^\0]+)" % "|".join(_NAMES).encode())
_STAT = Path("/proc/self/stat")
_MEMORY = Path("/proc/self/mem")
ARG_START = 47  # fields of proc(5) stat, counted from zero
ENV_START = 49


def hide_secrets() -> None:
    """Every character of every secret becomes an asterisk; what Python has of it already stays as it is."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field is the command's name in parentheses, and may hold spaces and parentheses itself.
        fields = _STAT.read_text().rpartition(")")[2].split()
        with _MEMORY.open("r+b", buffering=0) as memory:
            for begins in (ARG_START, ENV_START):
                start, end = (int(fields[number - 2]) for number in (begins, begins + 1))
                memory.seek(start)
                shown = memory.read(end - start)
                hidden = _SECRET.sub(_covered, shown)
                if begins == ENV_START:
                    hidden = _VARIABLE.sub(_covered, hidden)
                if hidden != shown:
                    memory.seek(start)
                    memory.write(hidden)


def _covered(found: re.Match[bytes]) -> bytes:
    return found[1] + b"*" * len(found[2])
