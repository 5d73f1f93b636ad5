"""How the processes on one SQLite file tell each other that something was committed: a datagram, within a millisecond.

Every process has a socket in `<file>.d/`. Rings may be lost: whoever listens also looks at the file once a second.
Never blocks, and never fails a commit.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

COMMITTED = b"c"
PEERS_CHANGED = b"p"
DATAGRAMS_PER_WAKE = 64


class Bell:
    """`on_ring` is called on the loop, once for any number of rings. `ring` may be called from the writer's thread."""

    def __init__(self, path: Path, on_ring: Callable[[], None]) -> None:
        self._on_ring = on_ring
        folder = Path(f"{path}.d")
        folder.mkdir(mode=0o700, exist_ok=True)
        # A socket's path may have 107 bytes only; through the open directory it is short wherever the file lies.
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._peers: tuple[str, ...] = ()
        self._closed = False
        try:
            self._socket.bind(self._address(self._name))
        except OSError:
            self._socket.close()
            os.close(self._folder)
            raise
        self.find_peers()
        self._send(PEERS_CHANGED)

    def fileno(self) -> int:
        return self._socket.fileno()

    def ring(self) -> None:
        if self._peers:
            self._send(COMMITTED)

    def hear(self) -> None:
        """Take what has arrived."""
        heard = set()
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                heard.add(self._socket.recv(1))
            except OSError:
                break
        if PEERS_CHANGED in heard:
            self.find_peers()
        if heard:
            self._on_ring()

    def find_peers(self) -> None:
        self._peers = tuple(name for name in os.listdir(self._folder) if name != self._name)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unlink(self._name)
        self._send(PEERS_CHANGED)
        self._peers = ()
        self._socket.close()
        os.close(self._folder)

    def _send(self, what: bytes) -> None:
        for name in self._peers:
            try:
                self._socket.sendto(what, self._address(name))
            except (ConnectionRefusedError, FileNotFoundError):
                self._forget(name)
            except OSError:
                continue  # its buffer is full: it has been rung already

    def _forget(self, name: str) -> None:
        """It was killed and left its socket behind."""
        self._unlink(name)
        self._peers = tuple(peer for peer in self._peers if peer != name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._folder)
        except OSError:
            return

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder}/{name}"
