"""Finds and runs the few programs of the host's that do what netlink does not: `nft` and the iptables family.

In PATH, else beside the Python interpreter (a checkout of its own), else where administrators' programs are. What they
are told, and what a refusal means, is their callers'. Runs in the kernel thread only: a program works in the namespace
of the thread that starts it.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LONGEST_REASON = 300


def find(name: str, environment: Mapping[str, str]) -> str | None:
    """As `shutil.which`, which would bring half a megabyte of archives along."""
    beside = str(Path(sys.executable).parent)
    folders = [*environment.get("PATH", "").split(":"), beside, "/usr/sbin", "/sbin"]
    places = (os.path.join(folder, name) for folder in folders if folder)
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)


def run(command: Sequence[str], name: str, timeout_s: float, *, text: str = "") -> str | None:
    """None where it did as it was told, else why not, in its own words.

    Raises:
        OSError: it cannot be started, or did not finish in time.
    """
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"{name} did not finish within {timeout_s:g} s") from error
    return " ".join(done.stderr.decode("utf-8", "replace").split())[:LONGEST_REASON] if done.returncode else None
