"""Makes, enters and removes network namespaces by name, without a fork: 0.3 ms each.

Only below /run/netns, which the lab has to itself (`lab.enter`); a name that exists already is refused. A namespace
ends when its last process and its name are gone.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kvnet.errors import NameTaken, Unfit
from worker.kernel.messages import set_link
from worker.kernel.namespaces import CLONE_NEWNET, OWN, entered, open_namespace
from worker.kernel.netlink import Netlink

FOLDER = Path("/run/netns")
LOOPBACK_INDEX = 1
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 0x100000
MNT_DETACH = 2
T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def create(name: str) -> Path:
    """A new namespace with its loopback up, kept by `/run/netns/<name>`.

    Raises:
        NameTaken: there is one of that name.
        Unfit: the kernel does not allow it.
    """
    path = FOLDER / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0))
    except FileExistsError:
        raise NameTaken(f"there is a network namespace {name} already", fix=f"ip netns del {name}") from None
    try:
        _in_new_thread(lambda: _unshare_to(path))
    except OSError as error:
        path.unlink()
        raise Unfit(f"no network namespace can be made here: {error.strerror}", fix="use root") from error
    return path


def share() -> None:
    """Names that are made from now on are seen in mount namespaces made later, too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    where = os.fsencode(FOLDER)
    for flags in (MS_SHARED,) if _is_mounted(FOLDER) else (MS_BIND | MS_REC, MS_SHARED):
        if _libc.mount(where, where, None, flags, None):
            raise Unfit(f"{FOLDER} cannot be shared: {os.strerror(ctypes.get_errno())}", fix="use root")


def _is_mounted(folder: Path) -> bool:
    """`os.path.ismount` does not see what is bound onto itself, and a second time would double all that is below.

    Nor would a list of the mounts tell: one of that name may be hidden under another /run.
    """
    return _mount_of(folder) != _mount_of(folder.parent)


def _mount_of(path: Path) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    return next(line for line in facts.splitlines() if line.startswith("mnt_id:"))


def destroy(path: Path) -> None:
    """Take the name away. Repeating is no error; processes still inside keep the namespace alive."""
    _libc.umount2(os.fsencode(path), MNT_DETACH)
    path.unlink(missing_ok=True)


def open_socket(path: Path, family: int, kind: int, protocol: int) -> socket.socket:
    """A socket that lives in the namespace, usable from anywhere."""
    return call(path, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))


def call(path: Path, function: Callable[[], T]) -> T:
    """Run the function in the namespace, in this thread. It must not await, and must not start threads."""
    descriptor = open_namespace(str(path))
    try:
        with entered(descriptor):
            return function()
    finally:
        os.close(descriptor)


def _unshare_to(path: Path) -> None:
    """In a thread of its own, which ends in the new namespace."""
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if _libc.mount(OWN.encode(), os.fsencode(path), b"none", MS_BIND, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    rtnetlink = Netlink(small=True)
    try:
        rtnetlink.one(set_link(LOOPBACK_INDEX, up=True))
    finally:
        rtnetlink.close()


def _in_new_thread(function: Callable[[], None]) -> None:
    """For what changes the thread it runs in. Raises what the function raises."""
    failures: list[OSError] = []

    def run() -> None:
        try:
            function()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
