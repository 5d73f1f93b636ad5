"""The state directory: small files, replaced as a whole, held by one worker at a time.

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
PAGE = 4096  # what one write changes at once for every reader, and for a process that is killed meanwhile
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
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
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

    def write(self, name: str, data: bytes, *, durable: bool, room: int = 0) -> None:
        """Replace the file; a reader sees the old or the new one, never a part.

        `room`: what will be written again soon has so many bytes, blanks at its end, and is then written in place: a
        new name in a folder waits for whatever else is synced to the same disk. It may be found empty after a crash.

        Raises:
            StateUnusable: not written.
        """
        target = self.path / name
        data = data.ljust(room)
        if room and not durable and self._is_written_in_place(target, data, room):
            return
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

    def _is_written_in_place(self, target: Path, data: bytes, room: int) -> bool:
        """False: it does not fit, or is not there and too large to be made in one write."""
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if len(data) > room:
                return False
            descriptor, size = -1, room
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            if descriptor < 0:
                descriptor = _created(target)
            else:
                size = os.fstat(descriptor).st_size
            if not len(data) <= size <= PAGE:
                return False
            _write_all(descriptor, data.ljust(size))
        except OSError as error:
            raise _unusable(self.path, error) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return True

    def sync(self, name: str) -> None:
        """What was written survives a power failure from now on. One that is gone is no error. Belongs into a thread.

        Raises:
            StateUnusable: nobody knows.
        """
        target = self.path / name
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _sync_folder(target.parent)
        except FileNotFoundError:
            return
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
