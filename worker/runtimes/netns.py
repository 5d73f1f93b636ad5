"""Workloads that are plain network namespaces, by path or `ip netns` name: the runtime that every other one builds on.

Looks at namespaces, never makes or removes one. Opening a path that came from outside may block, so it is done in a
thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Container

from kvnet.errors import Conflicting, Invalid, NamespaceNotFound
from worker.kernel import namespaces
from worker.ports import Namespace

MAX_INTERFACE_NAME = 15
MAX_INTERFACES = 256
PREFIX = "eth"


class NetworkNamespaces:
    """`boot_id` is part of a namespace's identity: inode numbers start anew with the host."""

    def __init__(self, boot_id: Callable[[], str]) -> None:
        self._boot_id = boot_id

    async def look(self, namespace: str) -> Namespace:
        """
        Raises:
            NamespaceNotFound: there is none.
            Invalid: it is the host's own.
        """
        return await asyncio.to_thread(self._look, namespace)

    async def identity(self, path: str) -> str:
        return await asyncio.to_thread(self._identity, path)

    def _look(self, namespace: str) -> Namespace:
        path = namespaces.resolve(namespace)
        try:
            descriptor = namespaces.open_namespace(path)
        except OSError as error:
            raise NamespaceNotFound(f"the network namespace {path} went away: {error.strerror}") from error
        try:
            found = os.fstat(descriptor)
            if _is_same(found, os.stat(namespaces.OWN)):
                raise Invalid.field(
                    "/netns",
                    f"{path} is the host's own network namespace",
                    "attach a namespace of its own; this one reaches its own workloads anyway",
                )
            identity = self._identity_of(found)
            with namespaces.entered(descriptor):
                interfaces = frozenset(name for _, name in socket.if_nameindex())
        finally:
            os.close(descriptor)
        return Namespace(path, identity, interfaces)

    def _identity(self, path: str) -> str:
        if not path or not namespaces.is_namespace(path):
            return ""
        try:
            return self._identity_of(os.stat(path))
        except OSError:
            return ""

    def _identity_of(self, found: os.stat_result) -> str:
        return f"{self._boot_id()}:{found.st_dev}:{found.st_ino}"


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def require_interface_name(name: str) -> str:
    """
    Raises:
        Invalid: the kernel would not take it, or a path or a shell would read it as something else.
    """
    plain = name.isascii() and all(c.isalnum() or c in "_.-" for c in name)
    if (
        not plain
        or not 1 <= len(name) <= MAX_INTERFACE_NAME
        or not name[0].isalnum()
        or name in ("lo", "all", "default")
    ):
        raise Invalid.field(
            "/interface",
            f"{name[:80]!r} is not an interface name",
            f"1 to {MAX_INTERFACE_NAME} letters, digits, '.', '_' or '-', beginning with a letter or digit",
        )
    return name


def choose_interface(wanted: str, namespace: Namespace, promised: Container[str], prefix: str = "") -> str:
    """The wanted name, or the first free one: ethN, or the prefix and a number. `promised` are names that are on their
    way into the namespace.

    Raises:
        Conflicting: it is taken.
    """
    if not wanted:
        candidates = (f"{prefix or PREFIX}{number}" for number in range(MAX_INTERFACES))
        free = (name for name in candidates if name not in namespace.interfaces and name not in promised)
        wanted = next(free, "")
        if not wanted:
            raise Conflicting(
                f"{namespace.path} has {MAX_INTERFACES} interfaces already", fix="name one with --interface"
            )
        return wanted
    if wanted in namespace.interfaces or wanted in promised:
        raise Conflicting(
            f"{namespace.path} has an interface {wanted} already",
            fix="choose another with --interface, or leave it out and kvnet takes the first free one",
        )
    return wanted
