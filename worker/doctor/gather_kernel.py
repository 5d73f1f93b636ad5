"""Finds out what the kernel can do here: by a process that tries it, and by what the kernel says of its modules.

Loads no module that is not loaded already and changes nothing: what is merely loadable is told so.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer

from kvnet.errors import Unfit
from worker.doctor.facts import KernelFacts, Trial
from worker.kernel import programs
from worker.kernel.firewall import find_nft
from worker.kernel.rawsockets import open_raw

MODULES = ("bridge", "veth", "vxlan", "macvlan", "nf_tables", "nf_conntrack", "br_netfilter")
# What of these a trial would load.
TRIED_WITH = {
    "bridge": "bridge",
    "veth": "veth",
    "vxlan": "vxlan",
    "macvlan": "macvlan",
    "nf_tables": "nf_tables",
    "conntrack": "nf_conntrack",
}
IPTABLES = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
TRIAL_S, PROGRAM_S = 10.0, 5.0
VERSION = re.compile(r"v(\d+(?:\.\d+)*)")
LONGEST_FILE = LONGEST_ANSWER = 16 << 20


def gather_kernel(environment: Mapping[str, str] = os.environ) -> KernelFacts:
    release = os.uname().release
    modules = {name: _module(name, release) for name in MODULES}
    nft = _nft(environment)
    return KernelFacts(
        release=release,
        trials=_trials(modules),
        modules=modules,
        nft=nft,
        nft_version=_version(nft) if nft else "",
        iptables=[name for name in IPTABLES if programs.find(name, environment)],
        capabilities=_capabilities(),
        is_root=os.geteuid() == 0,
        raw_sockets=_raw_sockets(),
    )


def _trials(modules: Mapping[str, str]) -> dict[str, Trial]:
    """A trial makes the kernel load what it needs; where that is not loaded yet, nothing is tried."""
    if any(modules[module] == "loadable" for module in TRIED_WITH.values()):
        waiting = sorted(module for module in TRIED_WITH.values() if modules[module] == "loadable")
        return {"netns": _netns(), **dict.fromkeys(TRIED_WITH, Trial(None, f"that would load {', '.join(waiting)}"))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.doctor.trial"],
            capture_output=True,
            timeout=TRIAL_S,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(("netns", *TRIED_WITH), Trial(None, f"the trial did not end well: {error}"))
    return {name: Trial(possible, detail) for name, (possible, detail) in found.items()}


def _raw_sockets() -> Trial:
    try:
        open_raw(socket.AF_PACKET, socket.SOCK_RAW, 0).close()  # protocol 0: nothing comes in
    except OSError as error:
        return Trial(False, error.strerror or str(error))
    return Trial(True)


def _netns() -> Trial:
    return Trial(True) if Path("/proc/self/ns/net").exists() else Trial(False, "there is no /proc/self/ns/net")


def _module(name: str, release: str) -> str:
    if Path(f"/sys/module/{name}").exists():
        return "loaded"
    if name == "br_netfilter" and Path("/proc/sys/net/bridge").exists():
        return "builtin"
    folder = Path(f"/lib/modules/{release}")
    if not folder.is_dir():
        return "unknown"
    if name in _names(folder / "modules.builtin"):
        return "builtin"
    return "loadable" if name in _names(folder / "modules.dep") else "missing"


def _names(path: Path) -> frozenset[str]:
    """Of the modules in a list of their files."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST_FILE)
    except OSError:
        return frozenset()
    files = (line.partition(":")[0].rpartition("/")[2] for line in text.splitlines())
    return frozenset(file.partition(".ko")[0].replace("-", "_") for file in files)


def _nft(environment: Mapping[str, str]) -> str:
    try:
        return find_nft(environment)
    except Unfit:
        return ""


def _version(program: str) -> str:
    told = run([program, "--version"])
    found = VERSION.search(told or "")
    return found.group(1) if found else ""


def run(command: Sequence[str]) -> str | None:
    """What a program says; None where it does not, or says more than can be looked at."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            stop = Timer(PROGRAM_S, process.kill)
            stop.start()
            try:
                told = process.stdout.read(LONGEST_ANSWER + 1) if process.stdout is not None else b""
                if len(told) > LONGEST_ANSWER:
                    process.kill()
                    return None
                return told.decode("utf-8", "replace") if process.wait() == 0 else None
            finally:
                stop.cancel()
    except OSError:
        return None


def _capabilities() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError):
        return None
