"""Writes a secret into a file for its owner alone. Never replaces one that is there, never prints it."""

from __future__ import annotations

import os
from pathlib import Path

from kvnet.errors import Invalid


def secret_to(path: Path, text: str) -> None:
    """Raises: Invalid."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise Invalid(f"{path} is there already", fix="name another file, or remove that one") from error
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}", fix="name a file in a folder of yours") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(f"{text}\n")


def require_free(path: Path | None) -> None:
    """Before what is to be kept in it is made. Raises: Invalid."""
    if path is None:
        return
    if os.path.lexists(path):
        raise Invalid(f"{path} is there already", fix="name another file, or remove that one")
    if not os.access(path.parent, os.W_OK):
        raise Invalid(f"{path.parent} cannot be written", fix="name a file in a folder of yours")
