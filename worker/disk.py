"""The state directory: small files, replaced atomically, held by one worker at a time.

What is written `durable` survives a power failure; anything else survives a crash of the worker, which is enough where
a power failure makes it worthless anyway. Blocking: durable writes belong into a thread. Never holds anything that the
store or the kernel could tell as well, but for the last known state.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kvnet.errors import StateUnusable

LOCK = "lock"
_HALF_WRITTEN = ".new"


class StateDir:
    """Names may have one folder: `attachments/<id>`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Make it if it is missing, and take it.

        Raises:
            StateUnusable: it cannot be made or written, or another worker has it.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StateUnusable(
                f"another worker uses the state directory {path}",
                fix="stop that one first, or give this one another --state-dir (and --host)",
            ) from error
        state = cls(path, lock)
        state.write("probe", b"", durable=False)
        state.remove("probe")
        return state

    def close(self) -> None:
        os.close(self._lock)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.path, error) from error

    def write(self, name: str, data: bytes, *, durable: bool) -> None:
        """Replace the file; a reader sees the old or the new one, never a part.

        Raises:
            StateUnusable: not written.
        """
        target = self.path / name
        fresh = target.with_name(target.name + _HALF_WRITTEN)
        try:
            descriptor = _created(fresh)
            try:
                _write_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fresh.rename(target)
            if durable:
                _sync_folder(target.parent)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def remove(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def names(self, folder: str) -> list[str]:
        """The files in a folder, without those that were never finished."""
        try:
            found = sorted(os.listdir(self.path / folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self.path, error) from error
        return [name for name in found if not name.endswith(_HALF_WRITTEN)]


def _created(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> StateUnusable:
    return StateUnusable(
        f"the state directory {path} cannot be used: {error.strerror or error}",
        fix="make it writable for the worker's user and give it room, or choose another with --state-dir",
    )
