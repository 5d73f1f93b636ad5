"""Who asks: from a bearer token, a cookie, a certificate, a socket file, or by an issuer's word, to a `Principal`.

A check is a look into a mirror, one SHA-256 and a comparison that takes the same time for every wrong secret; the store
is never asked. Decides nothing about what somebody may do, and never says why a credential is not good.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from controller.security.principal import Principal, Via
from controller.tables import Table
from kvnet import keys
from kvnet.errors import AuthenticationRequired, StoreUnavailable, TooManyFailures, Unauthenticated
from kvnet.model import Versioned
from kvnet.rules import shown
from kvnet.security import Role, Token, TokenText, hash_of, parse_token
from kvnet.sentinel import Meta

CERTIFICATE = "kvnet.certificate"  # in the ASGI scope: sha256 of the client's certificate (DER), hex
CERTIFICATE_UNTIL = "kvnet.certificate_until"  # in the ASGI scope: when that one ends, seconds since the epoch
COOKIE_UNTIL = "kvnet.cookie_until"  # in the ASGI scope: when the login ends, seconds since the epoch
UNIX = "kvnet.unix"  # in the ASGI scope: it came over a socket file; the peer's address is gone when the peer is
BEARER = b"bearer "
MAX_BEARER = 8192

LOCAL = Principal("local", Role.ADMIN, via=Via.UNIX)
OPEN = Principal("anonymous", Role.ADMIN, via=Via.OPEN)
# For what is open to all.
NOBODY = Principal("nobody", Role.JOIN, via=Via.NOTHING)

Scope = Mapping[str, Any]
_REQUIRED = keys.AUTHENTICATION.removeprefix(keys.META)
_NOBODYS_SECRET = "-" * 43


class Verifier(Protocol):
    """An issuer's tokens (`controller.security.oidc`)."""

    async def principal(self, text: str) -> Principal | None:
        """None: not good."""


class Credentials:
    """What this replica knows of the cluster's tokens."""

    def __init__(self, tokens: Table[Token], meta: Table[Meta]) -> None:
        self._tokens = tokens
        self._meta = meta
        self._principals: dict[str, tuple[int, Principal]] = {}
        self._by_certificate: dict[str, str] = {}
        tokens.listen(self._on_token)
        meta.listen(self._on_meta)
        # (the token's id; "" when the cluster begins or ceases to ask for one)
        self.changed: Callable[[str], None] = lambda _id: None

    @property
    def are_required(self) -> bool:
        """Also by a word that cannot be read: damage opens nothing."""
        return self._meta.get(_REQUIRED) is not None or keys.AUTHENTICATION in self._meta.broken

    @property
    def count(self) -> int:
        return len(self._tokens.items)

    def get(self, token_id: str) -> Versioned[Token] | None:
        return self._tokens.get(token_id)

    def may_join(self, text: TokenText) -> bool:
        """Whether it is worth a look into the store: ids are public, secrets are not."""
        found, given = self._tokens.get(text.id), hash_of(text.secret)
        ours = () if found is None else (found.value.hash or "-", found.value.joined_hash or "-")
        return True in [hmac.compare_digest(given, one) for one in ours]

    def with_certificate(self, fingerprint: str) -> Versioned[Token] | None:
        return self._tokens.get(self._by_certificate.get(fingerprint, ""))

    def principal(self, token: Versioned[Token], via: Via = Via.TOKEN) -> Principal:
        kept = self._principals.get(token.value.id)
        if kept is None or kept[0] != token.version:
            kept = self._principals[token.value.id] = (token.version, principal_of(token))
        return kept[1] if via is Via.TOKEN else principal_of(token, via)

    def _on_token(self, name: str, before: Versioned[Token] | None, after: Versioned[Token] | None) -> None:
        for fingerprint in _certificates(before):
            self._by_certificate.pop(fingerprint, None)
        for fingerprint in _certificates(after):
            self._by_certificate[fingerprint] = name
        self._principals.pop(name, None)
        if before is not None:
            self.changed(name)

    def _on_meta(self, name: str, before: Versioned[Meta] | None, after: Versioned[Meta] | None) -> None:
        if name == _REQUIRED and (before is None or after is None):
            self.changed("")


def _certificates(token: Versioned[Token] | None) -> list[str]:
    """The one it is bound to, and the one before it: a renewal's answer may have been lost."""
    if token is None:
        return []
    return [one for one in (token.value.certificate, token.value.previous_certificate) if one]


def principal_of(found: Versioned[Token], via: Via = Via.TOKEN) -> Principal:
    token = found.value
    name = f"{token.role}:{token.host}" if token.host else token.name
    return Principal(
        name=name,
        role=token.role,
        token=token.id,
        host=token.host,
        scope=token.scope,
        grants=token.grants,
        limits=token.limits,
        expires_at=token.expires_at,
        via=via,
        version=found.version,
    )


class Authenticator:
    """
    Attributes:
        known: the cluster's tokens; None until the cluster is open.
        from_cookie: the id of the token that a cookie stands for, if the request bears a good one.
        verifier: of an issuer's tokens.
        is_insecure: an operator's word that everybody may ask from everywhere, as long as the cluster does not care.
    """

    def __init__(
        self, known: Callable[[], Credentials | None], now: Callable[[], float], *, is_insecure: bool = False
    ) -> None:
        self.known = known
        self.now = now
        self.is_insecure = is_insecure
        self.from_cookie: Callable[[Scope], str | None] = lambda _scope: None
        self.verifier: Verifier | None = None

    async def identify(self, scope: Scope, authorization: bytes, *, has_cookie: bool) -> Principal:
        """
        Raises:
            Unauthenticated: a credential that is not good, or none where one is asked for.
            AuthenticationRequired: from elsewhere, or by a foreign name, in a cluster without credentials.
            StoreUnavailable: the controller is starting.
        """
        known = self.known()
        if known is None:
            raise StoreUnavailable("the controller is starting", fix="repeat in a moment")
        if authorization:
            found = self._bearer(known, scope, authorization)
            if found is None and self.verifier is not None and _is_foreign(authorization):
                found = await self.verifier.principal(authorization[len(BEARER) :].strip().decode("latin-1"))
            if found is None:
                raise not_good()
            return found
        if has_cookie and (found := self._cookie(known, scope)) is not None:
            return found
        if CERTIFICATE in scope and (found := self._certificate(known, scope)) is not None:
            return found
        return self._without(known, scope)

    def glance(self, scope: Scope, authorization: bytes) -> Principal | Literal[False] | None:
        """False: certainly nobody that is let in. None: `identify` has to look. Never waits."""
        known = self.known()
        if known is None or CERTIFICATE in scope or UNIX in scope:
            return None
        if not authorization:
            return False if known.are_required else None
        if self.verifier is not None and _is_foreign(authorization):
            return None
        return self._bearer(known, scope, authorization) or False

    def bearer(self, text: str, scope: Scope) -> Principal | None:
        """Of a token's text; None if it is not good here and now."""
        known = self.known()
        return None if known is None else self._bearer(known, scope, BEARER + text.encode("utf-8", "replace"))

    def _bearer(self, known: Credentials, scope: Scope, authorization: bytes) -> Principal | None:
        if len(authorization) > MAX_BEARER or authorization[: len(BEARER)].lower() != BEARER:
            return None
        text = parse_token(authorization[len(BEARER) :].strip().decode("latin-1"))
        if text is None:
            return None
        now = self.now()
        token = known.get(text.id)
        if token is None:
            hash_of(_NOBODYS_SECRET)  # about as long as a wrong secret takes
            return None
        if not token.value.admits(text.secret, now) or not self._is_good(token.value, scope, now):
            return None
        found, until = known.principal(token), token.value.good_until(text.secret)
        if token.value.certificate:
            return _until(replace(found, expires_at=until), scope.get(CERTIFICATE_UNTIL))
        return found if until == found.expires_at else replace(found, expires_at=until)

    def _cookie(self, known: Credentials, scope: Scope) -> Principal | None:
        token = known.get(self.from_cookie(scope) or "")
        if token is None or not self._is_good(token.value, scope, self.now()):
            return None
        return _until(known.principal(token, Via.COOKIE), scope.get(COOKIE_UNTIL))

    def _certificate(self, known: Credentials, scope: Scope) -> Principal | None:
        token = known.with_certificate(scope[CERTIFICATE] or "")
        now = self.now()
        if token is None or token.value.is_expired(now) or _is_past(scope, now):
            return None
        return _until(known.principal(token, Via.CERTIFICATE), scope.get(CERTIFICATE_UNTIL))

    def _is_good(self, token: Token, scope: Scope, now: float) -> bool:
        if token.is_expired(now):
            return False
        if not token.certificate:
            return True
        is_shown = scope.get(CERTIFICATE) in (token.certificate, token.previous_certificate)
        return is_shown and not _is_past(scope, now)

    def _without(self, known: Credentials, scope: Scope) -> Principal:
        """Who says nothing of himself."""
        if scope.get(UNIX):
            return LOCAL
        if known.are_required:
            raise not_good()
        if self.is_insecure:
            return OPEN
        if is_loopback(scope.get("client")):
            _require_own_name(scope["headers"])
            return OPEN
        raise AuthenticationRequired(
            "this cluster has no tokens yet, so only the controller's own machine is heard",
            fix="make one there: 'kvnet token create NAME --role admin', and use it; or start the controller with "
            "--insecure, which lets everybody change everything",
        )


def _until(found: Principal, end: float | None) -> Principal:
    """Good no longer than what it was proven with."""
    if end is None or (found.expires_at is not None and found.expires_at <= end):
        return found
    return replace(found, expires_at=end)


def _is_past(scope: Scope, now: float) -> bool:
    """The certificate ended after the connection began."""
    end: float | None = scope.get(CERTIFICATE_UNTIL)
    return end is not None and now >= end


def too_many_failures() -> TooManyFailures:
    return TooManyFailures(
        "too many wrong credentials came from this address",
        fix="wait a little; a good credential is served at once",
        context={"retry_after_s": 2},
    )


def not_good() -> Unauthenticated:
    return Unauthenticated(
        "the request bears no credential that is good here",
        fix="send 'Authorization: Bearer TOKEN' (kvnet: --token-file or KVNET_TOKEN); an admin makes tokens with "
        "'kvnet token create'",
    )


def _require_own_name(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A web page whose name somebody's DNS lets point to this machine is of one origin with it, for the browser here.

    Raises:
        AuthenticationRequired
    """
    host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1").lower()
    name = (host.rpartition(":")[0] or host).rstrip(".")
    if "." not in name or host.startswith("[") or name.replace(".", "").isdigit():
        return
    if not name.endswith(".localhost") and name != socket.gethostname().lower():
        raise AuthenticationRequired(
            f"this cluster has no tokens yet, so nobody is heard who asks for {shown(name)}",
            fix="ask for localhost or 127.0.0.1; or make a token: 'kvnet token create NAME --role admin'",
        )


def is_loopback(client: Sequence[Any] | None) -> bool:
    """Whether a peer's address is of this machine alone. None, a peer that is gone already, is not."""
    host = str(client[0]) if client else ""
    return host.startswith(("127.", "::ffff:127.")) or host == "::1"


def _is_foreign(authorization: bytes) -> bool:
    return len(authorization) <= MAX_BEARER and authorization.count(b".") == 2
