"""The first admin's token of a cluster, from or into a file: for machines that are set up by a program.

The text is in the file before the token is in the store, so that whoever dies in between goes on with the same one.
Never makes a second one: a cluster that has an admin is left as it is. Never prints a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from controller.requests import Caller
from controller.security.tokens import Made, TokenRequest, Tokens
from kvnet.errors import Invalid, StateUnusable
from kvnet.rules import shown
from kvnet.security import Role, TokenText, new_token, parse_token

MODE = 0o600
MAX_BYTES = 1024
NAME = "bootstrap"


async def bootstrap(tokens: Tokens, file: Path, caller: Caller) -> Made | None:
    """None: the cluster had an admin already.

    Raises:
        Invalid: what is in the file is no token, or others may read it.
        StateUnusable: the file cannot be read or written.
        KvnetError: as `Tokens.create`.
    """
    if await tokens.has_admin():
        return None
    text = _read(file) or _write(file, new_token(secrets.token_hex, secrets.token_urlsafe))
    return await tokens.create_first(TokenRequest(NAME, Role.ADMIN), caller, text)


def _read(file: Path) -> TokenText | None:
    """None: there is no such file."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateUnusable(f"{shown(str(file))} cannot be read: {error.strerror}", fix="name another file") from error
    if mode & 0o077:
        raise Invalid(f"{shown(str(file))} can be read by others than its owner", fix=f"chmod 600 {file}")
    text = parse_token(data.decode("ascii", "replace").strip())
    if text is None:
        raise Invalid(
            f"{shown(str(file))} holds no token", fix="remove it, and a new one is made; or name another file"
        )
    return text


def _write(file: Path, text: TokenText) -> TokenText:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w") as opened:
            os.fchmod(opened.fileno(), MODE)
            opened.write(f"{text}\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise StateUnusable(
            f"{shown(str(file))} cannot be written: {error.strerror}", fix="name a file in a directory of this user"
        ) from error
    return text
