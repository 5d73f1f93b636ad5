"""Who this host is to the controllers: a token, a key and a certificate, and the CA that it believes.

Kept in `identity/` of the state directory, for its owner alone; made whole by `worker.joining`, renewed in place by
`worker.renewal`. Read before anything else is opened. Never leaves this host but for what proves it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from kvnet.errors import StateUnusable
from kvnet.security import parse_token
from kvnet.tls import Trust

DIRECTORY = "identity"
PENDING = "identity.joining"
TOKEN, KEY, CERTIFICATE, CA, ABOUT = "token", "key.pem", "cert.pem", "ca.pem", "about.json"
PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class About:
    """Moments are seconds since the epoch, 0 where there is no certificate."""

    host: str
    controller: str
    certified_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Identity:
    """`directory`: where it lies; `token`: its text."""

    directory: Path
    about: About
    token: str

    @property
    def trust(self) -> Trust:
        certificate, key = self._file(CERTIFICATE), self._file(KEY)
        return Trust(self._file(CA), certificate, key if certificate else "")

    def _file(self, name: str) -> str:
        path = self.directory / name
        return str(path) if path.exists() else ""


def load(state_dir: Path) -> Identity | None:
    """None: this host has not joined.

    Raises:
        StateUnusable: it is damaged, or others may read it.
    """
    directory = state_dir / DIRECTORY
    try:
        text = (directory / TOKEN).read_text(encoding="ascii").strip()
        about = About(**json.loads((directory / ABOUT).read_bytes()))
        is_open = any((directory / name).stat().st_mode & 0o077 for name in (TOKEN, KEY) if (directory / name).exists())
    except (FileNotFoundError, NotADirectoryError):
        if directory.is_dir():
            raise _damaged(directory, "a file is missing") from None
        return None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(directory, str(error)) from error
    if is_open:
        raise StateUnusable(
            f"others may read this host's identity in {directory}",
            fix=f"chmod -R go= {directory}; and join anew with --replace if they may have",
        )
    if parse_token(text) is None:
        raise _damaged(directory, "its token is none")
    return Identity(directory, about, text)


def save(state_dir: Path, about: About, files: dict[str, str]) -> Identity:
    """In place of what there was, as a whole. `files` by their names; what is "" is not there.

    Raises:
        StateUnusable: not written.
    """
    import shutil  # only a host that joins needs it, and it takes half a megabyte

    directory, fresh, old = (state_dir / f"{DIRECTORY}{end}" for end in ("", ".new", ".old"))
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        for name, text in files.items():
            if text:
                write(fresh / name, text)
        write(fresh / ABOUT, json.dumps(asdict(about)))
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StateUnusable(
            f"this host's identity cannot be written to {directory}: {error.strerror}", fix="look at --state-dir"
        ) from error
    return Identity(directory, about, files[TOKEN])


def write(path: Path, text: str) -> None:
    """For its owner alone from the first moment on; a reader sees the old or the new one. Raises: OSError."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)


def _damaged(directory: Path, why: str) -> StateUnusable:
    return StateUnusable(
        f"this host's identity in {directory} cannot be used: {why}", fix="join anew: 'kvnet worker join --replace'"
    )
