"""Enters namespaces of our own, so that nothing the lab does can touch the machine's network.

As root: a network and a mount namespace. As an ordinary user: also a user namespace, where the kernel allows that.
Everything made inside vanishes with the last process in it. Never runs anything in the machine's own namespaces.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kvnet.errors import Unfit

PROBE_SECONDS = 10.0
PR_SET_PDEATHSIG = 1  # prctl(2)
_INSIDE = "KVNET_LAB_INSIDE"


def is_inside() -> bool:
    """Whether this process was started through `wrapped` (set in its environment)."""
    return os.environ.get(_INSIDE) == str(os.getppid())


def wrapped(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line and environment that run `command` in namespaces of its own, as a direct child of ours.

    Raises:
        Unfit: the kernel does not allow it; says which setting, and what to do.
    """
    tool = shutil.which("unshare")
    if tool is None:
        raise Unfit("there is no 'unshare' on this machine", fix="install util-linux")
    reasons = []
    for options in (["-nm"], ["-Urnm"]) if os.geteuid() == 0 else (["-Urnm"],):
        probe = subprocess.run(
            [tool, *options, "true"], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
        if probe.returncode == 0:
            return [tool, *options, *command], {**os.environ, _INSIDE: str(os.getpid())}
        reasons.append(probe.stderr.strip() or f"exit status {probe.returncode}")
    raise Unfit(f"no network namespace can be made here: {'; '.join(reasons)}", fix=_advice())


def settle() -> None:
    """Called once by the process that `wrapped` started: ends with its parent, and has a /run of its own.

    Raises:
        Unfit: the mount is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if not is_inside():
        raise Unfit("the process that started the lab is gone", fix="start it again")
    if libc.mount(b"kvnet-lab", b"/run", b"tmpfs", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unfit(f"a private /run cannot be mounted: {reason}", fix="use root: sudo make demo")
    Path("/run/netns").mkdir()
    # What workers write there would outlive the lab.
    os.environ["KVNET_NAMESPACE_FILES"] = "/run/kvnet-namespace-files"


def _advice() -> str:
    """What stands in the way, by the settings that are known to."""
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces here (Ubuntu 23.10 and newer): use sudo, or allow it until the next "
            "boot with: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "use sudo, or allow it until the next boot with: sudo sysctl kernel.unprivileged_userns_clone=1"
    if _read("/proc/sys/user/max_user_namespaces") == "0":
        return "use sudo, or allow it until the next boot with: sudo sysctl user.max_user_namespaces=10000"
    if _read("/proc/sys/user/max_net_namespaces") == "0":
        return "allow it until the next boot with: sudo sysctl user.max_net_namespaces=10000"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return (
            "a container's default seccomp profile forbids it: run it with "
            "--cap-add NET_ADMIN --cap-add SYS_ADMIN --security-opt seccomp=unconfined, or on the host itself"
        )
    return "use root: sudo make demo"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
