"""The file of a backup: written whole or not at all, readable by its owner only, compressed if its name ends with .gz.

`-` stands for stdout and stdin. Never overwrites a file unless told, and leaves nothing behind when it fails.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvnet.errors import BackupUnusable, Invalid

STREAM = "-"
GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE = 2 * 1024 * 1024  # a value of 256 KiB, as JSON at its longest


def write(file: str, lines: Iterable[bytes], *, force: bool) -> int:
    """The number of bytes written.

    Raises:
        Invalid: it is there, or it cannot be written.
    """
    if file == STREAM:
        return _to_stdout(lines)
    target = Path(file)
    if not force and target.exists():
        raise Invalid(f"{file} is there already", fix="name another file, or say --force to replace it")
    if target.exists() and not target.is_file():  # a device, a folder: who is root would replace it for everybody
        raise Invalid(f"{file} is not a file", fix="name another one, or '-' for standard output")
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                data = _compressed(lines) if file.endswith(".gz") else lines
                size = sum(out.write(piece) for piece in data)
                out.flush()
                os.fsync(out.fileno())
            _put_in_place(fresh, target, force=force)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise Invalid(f"{file} cannot be written: {error.strerror or error}", fix="name another file") from error
    return size


def read(file: str) -> Iterator[bytes]:
    """Its lines.

    Raises:
        Invalid: it cannot be read.
        BackupUnusable: its compression is damaged, or a line is endless.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = io.BufferedReader(io.FileIO(0 if file == STREAM else file, closefd=file != STREAM))
            stack.callback(raw.close)
            source = stack.enter_context(gzip.open(raw)) if raw.peek(2)[:2] == GZIP_MAGIC else raw
            while line := source.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise BackupUnusable("this is not a backup of kvnet", fix="name a file that 'kvnet backup' wrote")
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BackupUnusable(
            f"the backup is damaged: its compressed data cannot be read ({error})", fix="use another backup"
        ) from error
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror or error}", fix="name a file that is there") from error


def _to_stdout(lines: Iterable[bytes]) -> int:
    if sys.stdout.isatty():
        raise Invalid("a backup holds everything and is not for a terminal", fix="redirect stdout, or name a file")
    size = sum(sys.stdout.buffer.write(line) for line in lines)
    sys.stdout.buffer.flush()
    return size


def _compressed(lines: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for line in lines:
        yield packer.compress(line)
    yield packer.flush()


def _put_in_place(fresh: Path, target: Path, *, force: bool) -> None:
    if force:
        fresh.rename(target)
    else:
        os.link(fresh, target)  # unlike a rename, it fails if somebody made the file meanwhile
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
