"""What a browser holds after a login: a token's id and an end, sealed with a secret that all replicas share.

The seal is over the hash of the token's secret too, so a cookie dies with what it was made of: with the token, and when
its secret is rotated. Nothing is kept of who is logged in. Pure: keys, time and tokens come in.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from kvnet.security import Token

NAME = "kvnet_session"
LIFE_S = 12 * 3600.0
KEY_BYTES = 32
KEY_AGE_S = 30 * 86_400.0  # then the next login makes a new one
MAX_KEYS = 4
MAX_HEADER = 8192
_TEXT = re.compile(r"([0-9a-f]{12})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """`secret`: hex."""

    secret: str
    made_at: float

    def __post_init__(self) -> None:
        """Raises: ValueError, TypeError: it is none; whoever reads it from the store is told that it is broken."""
        if len(bytes.fromhex(self.secret)) < KEY_BYTES or not isfinite(self.made_at):
            raise ValueError("not a key")


@dataclass(frozen=True, slots=True)
class Keys:
    """Under `secrets/cookies`; the newest first. Older ones stay for as long as a cookie of theirs can be good."""

    keys: tuple[Key, ...]


class Login(NamedTuple):
    token: str
    until: float


def sealed(token: Token, until: float, keys: Keys) -> str:
    """A cookie's value."""
    return f"{token.id}.{int(until)}.{_mac(keys.keys[0], token.id, int(until), token.hash)}"


def opened(value: str, keys: Keys, token_of: Callable[[str], Token | None], now: float) -> Login | None:
    """None: not ours, over, or not of the token's present secret."""
    found = _TEXT.match(value)
    if found is None or now >= int(found[2]):
        return None
    token = token_of(found[1])
    if token is None:
        return None
    until, ends = int(found[2]), token.previous_until or 0.0
    if token.hash and _fits(found[3], keys, token.id, until, token.hash):
        return Login(token.id, float(until))
    if token.previous and now < ends and _fits(found[3], keys, token.id, until, token.previous):
        return Login(token.id, min(float(until), ends))
    return None


def value_in(header: str) -> str:
    """Of our cookie in a Cookie header; "" if it is not there."""
    for part in header[:MAX_HEADER].split(";"):
        name, _, value = part.strip().partition("=")
        if name == NAME:
            return value
    return ""


def needs_key(keys: Keys | None, now: float) -> bool:
    return keys is None or not keys.keys or now - keys.keys[0].made_at >= KEY_AGE_S


def with_new_key(keys: Keys | None, secret: str, now: float) -> Keys:
    """Without those that no living cookie can be of."""
    old = keys.keys if keys is not None else ()
    # A key signs until the next one is made: its last cookie is over LIFE_S after that.
    alive = [key for key, after in zip(old, (Key(secret, now), *old), strict=False) if now - after.made_at < LIFE_S]
    return Keys((Key(secret, now), *alive)[:MAX_KEYS])


def header(value: str, *, is_secure: bool, life_s: float) -> str:
    """Set-Cookie. Not for scripts, not for other sites, and over TLS only where there is TLS."""
    secure = "; Secure" if is_secure else ""
    return f"{NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max(0, int(life_s))}{secure}"


def _fits(mac: str, keys: Keys, token: str, until: int, made_of: str) -> bool:
    return True in [hmac.compare_digest(_mac(key, token, until, made_of), mac) for key in keys.keys]


def _mac(key: Key, token: str, until: int, made_of: str) -> str:
    text = f"{token}.{until}.{made_of}".encode()
    return urlsafe_b64encode(hmac.digest(bytes.fromhex(key.secret), text, "sha256")).decode().rstrip("=")
