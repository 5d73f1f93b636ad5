"""Network namespaces without a fork: open them, ask what they are, work in one for a moment.

A thread, not a process, is in a namespace: `entered` moves the calling thread and moves it back, and a socket made
meanwhile stays in the namespace for its life. Nothing may be awaited in between. A thread that cannot come back would
program the wrong host, so the process ends then. Never creates or removes a namespace: those are the runtimes'.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kvnet.errors import MissingCapability, NamespaceNotFound
from kvnet.rules import NAME

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
EXIT_LOST_IN_NAMESPACE = 70
OWN = "/proc/thread-self/ns/net"
NAMED = (Path("/run/netns"), Path("/var/run/netns"))  # where `ip netns` keeps them

_libc = ctypes.CDLL(None, use_errno=True)


def resolve(namespace: str) -> str:
    """The path of a namespace given by path or by its `ip netns` name.

    Raises:
        NamespaceNotFound: there is none, or it is something else.
    """
    if "/" in namespace:
        candidates = [Path(namespace)]
    else:
        candidates = [folder / namespace for folder in NAMED] if NAME.match(namespace) else []
    for candidate in candidates:
        if is_namespace(str(candidate)):
            return str(candidate)
        if is_hidden(str(candidate)):
            raise MissingCapability(
                f"this worker may not look into {candidate}: that takes CAP_SYS_PTRACE, which it does not have",
                fix="give the namespace a name and attach that: ip netns attach NAME PID",
            )
    raise NamespaceNotFound(
        f"{namespace!r} is not a network namespace on this host",
        fix="give a name that `ip netns list` shows, or a path such as /proc/PID/ns/net of a running process",
    )


def is_namespace(path: str) -> bool:
    """Whether `path` is a network namespace that this process can open."""
    try:
        os.close(open_namespace(path))
    except (OSError, ValueError):
        return False
    return True


def is_hidden(path: str) -> bool:
    """Whether it is the network namespace of a process that we may not look into."""
    try:
        os.close(open_namespace(path))
    except PermissionError:
        return path.startswith("/proc/") and path.endswith("/ns/net")
    except (OSError, ValueError):
        return False
    return False


def open_namespace(path: str) -> int:
    """A descriptor of the namespace; the caller closes it.

    Raises:
        OSError: there is no such file, it may not be opened, or (EINVAL) it is no network namespace.
    """
    # Non-blocking: the path comes from outside, and a FIFO would hold this thread for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a network namespace", path)
    return descriptor


def enter_for_good(descriptor: int) -> None:
    """Move the calling thread into the namespace. For threads that live there until they end."""
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise MissingCapability(
                "this process may not enter network namespaces (setns: operation not permitted)",
                fix="run it as root, or give it CAP_SYS_ADMIN and CAP_NET_ADMIN",
            )
        raise OSError(number, os.strerror(number), "setns")


@contextlib.contextmanager
def entered(descriptor: int | None) -> Iterator[None]:
    """The calling thread is in the namespace inside the block (None: stays where it is). Never await in there."""
    if descriptor is None:
        yield
        return
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_for_good(descriptor)
        try:
            yield
        finally:
            if _libc.setns(home, CLONE_NEWNET):
                os._exit(EXIT_LOST_IN_NAMESPACE)
    finally:
        os.close(home)
