"""Credentials as plain data: tokens, their roles, and what they may not exceed.

A token's text is `kvnet_<id>_<secret>`. The id is public, and names it everywhere; the secret is known to its holder
alone: what is stored is a hash. Nothing here decides what a role may do, reads a clock, or keeps a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from kvnet.errors import Invalid
from kvnet.rules import require_labels, require_name, shown

ID_BYTES = 6
SECRET_BYTES = 32
_TEXT = re.compile(r"kvnet_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")


class Role(StrEnum):
    """From most to least."""

    ADMIN = "admin"
    OPERATOR = "operator"  # networks, endpoints, reservations
    VIEWER = "viewer"
    HOST = "host"  # one host's worker
    JOIN = "join"  # becomes a host's credential, once


class Grant(StrEnum):
    """What a host may beyond its own endpoints."""

    DOCKER = "docker"  # reads the catalogue of networks, makes and names networks


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. `rate`: requests a second, of each replica. `streams`: open event streams, of each replica."""

    networks: int | None = None
    endpoints: int | None = None
    rate: float | None = None
    streams: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Token:
    """A credential as it is stored. Times are seconds since the epoch.

    Attributes:
        hash: sha256 of the secret, hex; "" if there is none and only the certificate counts.
        host: of the roles `host` and `join`; "" for the others.
        scope: only networks that bear all these labels; none = all networks.
        expires_at: None = never.
        previous: the hash that is good too until `previous_until`, after a rotation.
        certificate: sha256 of the client certificate (DER, hex) that the connection must bear; "" = none.
        previous_certificate: the one that it replaced, and that open connections bear; good as long as it is valid.
        joined_with: id of the join token that this one was made of, which is its own.
        joined_hash: that token's hash, so that a host whose answer was lost can ask again; admits nobody.
    """

    id: str
    name: str
    role: Role
    created_at: float
    created_by: str
    hash: str = ""
    host: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    expires_at: float | None = None
    previous: str = ""
    previous_until: float | None = None
    certificate: str = ""
    previous_certificate: str = ""
    joined_with: str = ""
    joined_hash: str = ""
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        require_name(self.name, "/name")
        require_labels(self.scope, "/scope")
        if (self.role in (Role.HOST, Role.JOIN)) != bool(self.host):
            detail = f"a token of role {self.role} and host {shown(self.host)}"
            raise Invalid.field("/host", detail, "tokens of hosts, and those to join with, name one; no others do")
        if self.host:
            require_name(self.host, "/host")
        for name in ("hash", "previous", "certificate", "previous_certificate", "joined_hash"):
            value = getattr(self, name)
            if value and not _HASH.match(value):
                raise Invalid.field(f"/{name}", f"{shown(value)} is no sha256", "64 hex digits")

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def admits(self, secret: str, now: float) -> bool:
        """Takes the same time for every wrong secret."""
        found = hash_of(secret)
        is_current = hmac.compare_digest(found, self.hash or "-")
        is_previous = hmac.compare_digest(found, self.previous or "-") and now < (self.previous_until or 0.0)
        return is_current or is_previous

    def good_until(self, secret: str) -> float | None:
        """When a secret that admits ceases to: one that was rotated does before its token."""
        if not self.previous or hmac.compare_digest(hash_of(secret), self.hash or "-"):
            return self.expires_at
        until = self.previous_until or 0.0
        return until if self.expires_at is None else min(until, self.expires_at)


@dataclass(frozen=True, slots=True)
class Authentication:
    """The word of the cluster that it wants to know who asks, everywhere. Its absence means that there are no tokens
    yet, or that an admin took it back."""

    required_since: float
    required_by: str


class TokenText(NamedTuple):
    """What a holder has."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"kvnet_{self.id}_{self.secret}"


def parse_token(text: str) -> TokenText | None:
    """None: not a token of ours."""
    found = _TEXT.match(text)
    return None if found is None else TokenText(found[1], found[2])


def new_token(token_hex: Callable[[int], str], token_urlsafe: Callable[[int], str]) -> TokenText:
    """From the system's entropy: `secrets.token_hex` and `secrets.token_urlsafe`."""
    return TokenText(token_hex(ID_BYTES), token_urlsafe(SECRET_BYTES))


def hash_of(secret: str) -> str:
    """Fast on purpose: 256 random bits cannot be guessed, however fast guesses are; passwords never come here."""
    return hashlib.sha256(secret.encode()).hexdigest()
