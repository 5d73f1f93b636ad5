"""A world of its own for the kernel tests: namespaces in which nothing can reach the machine's network.

Entered by the test process itself, once, before the first kernel test: everything it starts is inside as well, and all
of it vanishes with the process. As an ordinary user a user namespace comes first, so no root is needed where the
kernel allows that.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from lab.namespaces import LOOPBACK_INDEX
from worker.kernel.messages import set_link
from worker.kernel.netlink import Netlink

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


_REFUSAL = pytest.StashKey[str]()


class Refused(Exception):
    """The kernel does not allow it; says what, and what to do."""


def prepare(session: pytest.Session, folder: Path) -> None:
    """For `pytest_collection_finish` of a folder with kernel tests: before any test ran, so that the process still has
    one thread, which a user namespace asks for. The first folder of a run does it for all.
    """
    has_kernel_tests = any(folder in item.path.parents for item in session.items)
    if not has_kernel_tests or session.config.option.collectonly or _REFUSAL in session.config.stash:
        return
    session.config.stash[_REFUSAL] = ""
    try:
        enter()
    except Refused as error:
        session.config.stash[_REFUSAL] = str(error)
        return
    rtnetlink = Netlink()
    rtnetlink.one(set_link(LOOPBACK_INDEX, up=True))
    rtnetlink.close()


def require(config: pytest.Config) -> None:
    """Fail the test that asks, where there is no such world."""
    if config.stash[_REFUSAL]:
        pytest.fail(config.stash[_REFUSAL], pytrace=False)


def enter() -> None:
    """Raises: Refused."""
    user, group = os.geteuid(), os.getegid()
    is_root = user == 0
    if not (is_root and _unshare(CLONE_NEWNET | CLONE_NEWNS) == 0):
        number = _unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        if number:
            raise Refused(
                f"the kernel tests need network namespaces, and unshare says: {os.strerror(number)}. "
                "Run them as root, or allow unprivileged user namespaces "
                "(sysctl kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces=10000; "
                "in a container: --security-opt seccomp=unconfined)."
            )
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, b"/", None, MS_REC | MS_PRIVATE)
    _mount(b"tests", b"/run", b"tmpfs", 0)
    Path("/run/netns").mkdir()
    os.environ["KVNET_NAMESPACE_FILES"] = "/run/kvnet-namespace-files"  # what workers write there would stay for good


def _unshare(flags: int) -> int:
    """0, or the error's number."""
    return ctypes.get_errno() if _libc.unshare(flags) else 0


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, flags, None):
        raise Refused(f"the kernel tests need a /run of their own: mount says {os.strerror(ctypes.get_errno())}")
