"""Who a request comes from, once that is proven. Plain data: what it may do is decided in `permissions` and `sight`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kvnet.security import UNLIMITED, Grant, Limits, Role

PRINCIPAL = "kvnet.principal"  # in the ASGI scope


class Via(StrEnum):
    """How it was proven."""

    TOKEN = "token"
    COOKIE = "cookie"
    CERTIFICATE = "certificate"
    OIDC = "oidc"
    UNIX = "unix"
    OPEN = "open"  # not at all: the cluster asks nobody
    NOTHING = "nothing"  # not at all, and it matters: may only what is open to all


@dataclass(frozen=True, slots=True)
class Principal:
    """`name` goes into the journal: a token's name, "host:h1", "oidc:alice", "local".

    Attributes:
        token: the token's id; "" where there is none (a unix socket, OIDC, a cluster without authentication).
        host: of the role `host`.
        scope: sees and changes only networks with all these labels; none = all.
        subject: of an issuer's: who it is, whatever token he shows.
        version: of the token; another one is another credential.
        expires_at: when it ceases to be good, seconds since the epoch; None = never.
    """

    name: str
    role: Role
    token: str = ""
    host: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    limits: Limits = UNLIMITED
    expires_at: float | None = None
    via: Via = Via.TOKEN
    version: int = 0
    subject: str = ""

    @property
    def account(self) -> str:
        """Whom limits and quotas are of; "" has none."""
        return self.token or self.subject

    @property
    def is_proven(self) -> bool:
        return self.via not in (Via.OPEN, Via.NOTHING)
