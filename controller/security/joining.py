"""Hosts join: a token that is good once becomes the host's own credential, in one transaction.

The host makes its secret and its key itself; only a hash and a signing request come here. The join token's key in the
store is overwritten with the host's token, so of two who use it exactly one wins, and the winner that lost its answer
may ask again: it alone knows both the old secret and the new hash. The host's name is the join token's, whatever the
request says. Never tells a wrong token from a used or an expired one.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backends.store import Absent, Check, Conflict, Delete, Entry, Put, Store, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.security.limits import Buckets
from controller.security.tokens import Commits, public
from kvnet import codec, keys
from kvnet.errors import (
    AlreadyJoined,
    Invalid,
    NotSupported,
    RateLimited,
    StoreBroken,
    TooMuchContention,
    Unauthenticated,
)
from kvnet.model import Versioned
from kvnet.security import Role, Token, TokenText, hash_of, parse_token

ATTEMPTS = 16
REPEAT_S = 900.0  # as long as a join token lives, by default
MAX_REPLACED = 40
UNKNOWN_PER_S, UNKNOWN_AT_ONCE = 1.0, 20.0
# A host needs one in two months, and one more for each answer that was lost; each is a change that everybody hears of.
SIGNED_PER_S, SIGNED_AT_ONCE = 6 / 3600, 6.0

Sign = Callable[[str, str], str]  # (signing request, host) -> certificate; both in PEM


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """
    Attributes:
        token: the join token's text.
        hash: sha256 of the secret that the host will have, as hex.
        certificate_request: PEM; "" asks for no certificate.
        shown: sha256 of the certificate that the connection bears; "" = none.
        host: refused if it is not the token's; "" = whatever that says.
        replaces: the credentials that the host has already are to die.
    """

    token: str
    hash: str
    certificate_request: str = ""
    shown: str = ""
    host: str = ""
    replaces: bool = False


class Joined(NamedTuple):
    """`certificate`: "" where none was asked for, or nobody can sign here."""

    token: Versioned[Token]
    certificate: str


class Joining:
    """`known`: whether a join token may be good, as far as this replica has heard; it may be behind.

    Attributes:
        signer: who signs certificates now; None where no CA's key is.
    """

    def __init__(
        self, store: Store, writer: Commits, now: Callable[[], float], known: Callable[[TokenText], bool]
    ) -> None:
        self._store = store
        self._writer = writer
        self._now = now
        self._known = known
        self.signer: Callable[[], Sign | None] = lambda: None
        self._unknown = Buckets()
        self._signed = Buckets()

    async def join(self, asked: JoinRequest, caller: Caller) -> Joined:
        """
        Raises:
            Unauthenticated: the join token is not good, or not any more.
            AlreadyJoined: the host has credentials, and they are not to be replaced.
            Invalid: the signing request.
            RateLimited: too many that nobody knows came from there, or this one has asked for too many certificates.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        text = parse_token(asked.token)
        if text is None:
            raise not_good()
        if not self._known(text):
            self._require_turn(caller.source)
        with store_errors_told():
            for _ in range(ATTEMPTS):
                found = await self._found(text)
                if asked.host not in ("", found.value.host):
                    raise Invalid.field(
                        "/host", f"the join token is for host {found.value.host!r}, not for {asked.host!r}", "its host"
                    )
                try:
                    if found.value.role is Role.HOST:
                        return await self._again(found, asked, caller)
                    return await self._first(found, asked, caller)
                except (Conflict, Unknown):
                    continue  # what is looked at next shows who has won
        raise TooMuchContention("joining: others were faster every time", fix="repeat the request")

    async def renew(self, token_id: str, request: str, shown: str, caller: Caller) -> Joined:
        """A new certificate for a host that has joined; the one that it shows stays good as long as it is valid.

        Raises:
            NotSupported: no CA's key is here.
            Unauthenticated: the host's token is gone.
            RateLimited: it has asked for too many.
            Invalid, TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        if self.signer() is None:
            raise NotSupported(
                "this controller signs no certificates", fix="ask one that runs with --ca and has the CA's key"
            )
        self._require_need(token_id)
        with store_errors_told():
            for _ in range(ATTEMPTS):
                entry = await self._store.get(keys.token(token_id))
                found = _token(entry)
                if found is None or found.value.role is not Role.HOST:
                    raise not_good()
                certificate, fingerprint = self._certificate(request, found.value.host, "")
                before = shown if shown in _certificates(found.value) else found.value.certificate
                new = replace(found.value, certificate=fingerprint, previous_certificate=before)
                try:
                    return await self._write(found, new, certificate, "token.certified", caller)
                except (Conflict, Unknown):
                    continue
        raise TooMuchContention("the certificate: others were faster every time", fix="repeat the request")

    def _require_turn(self, source: str) -> None:
        """Each of those costs a look into the store."""
        wait_s = self._unknown.take(source, UNKNOWN_PER_S, UNKNOWN_AT_ONCE, self._now())
        if wait_s:
            raise RateLimited(
                "too many unknown join tokens came from this address",
                fix=f"ask again in {wait_s:.1f} s",
                context={"retry_after_s": round(wait_s, 3)},
            )

    def _require_need(self, token_id: str) -> None:
        wait_s = self._signed.take(token_id, SIGNED_PER_S, SIGNED_AT_ONCE, self._now())
        if wait_s:
            raise RateLimited(
                "this host has asked for more certificates than a host needs",
                fix=f"ask again in {wait_s / 60:.0f} min; the one that it has is good until it ends",
                context={"retry_after_s": round(wait_s, 3)},
            )

    async def _found(self, text: TokenText) -> Versioned[Token]:
        """A token to join with, or one that was joined with it. Raises: Unauthenticated."""
        found = _token(await self._store.get(keys.token(text.id)))
        if found is None:
            raise not_good()
        now, token = self._now(), found.value
        if token.role is Role.JOIN and token.admits(text.secret, now) and not token.is_expired(now):
            return found
        is_same = hmac.compare_digest(hash_of(text.secret), token.joined_hash or "-")
        if token.role is Role.HOST and is_same and now - token.created_at < REPEAT_S:
            return found
        raise not_good()

    async def _first(self, found: Versioned[Token], asked: JoinRequest, caller: Caller) -> Joined:
        guard = await self._store.get(keys.TOKEN_GUARD)
        now, old = self._now(), found.value
        others = _of_host(old.host, (await self._store.list(keys.TOKENS)).entries)
        if others and not asked.replaces:
            raise AlreadyJoined(
                f"host {old.host!r} has joined already: token {others[0].value.name!r}",
                fix="join with --replace: what it had is good for nothing then; or remove that token first",
                context={"host": old.host, "id": others[0].value.id},
            )
        certificate, fingerprint = self._certificate(asked.certificate_request, old.host, asked.shown)
        new = replace(
            old,
            role=Role.HOST,
            hash=asked.hash,
            created_at=now,
            expires_at=None,
            certificate=fingerprint,
            joined_with=old.id,
            joined_hash=old.hash,
        )
        dropped = others[:MAX_REPLACED]
        return await self._write(found, new, certificate, "host.joined", caller, guard=guard, dropped=dropped)

    async def _again(self, found: Versioned[Token], asked: JoinRequest, caller: Caller) -> Joined:
        """The answer was lost. Its certificate is another one, for nobody has kept the first."""
        token = found.value
        if not hmac.compare_digest(token.hash, asked.hash):
            raise not_good()
        if asked.certificate_request and self.signer() is not None:
            self._require_need(token.id)
        certificate, fingerprint = self._certificate(asked.certificate_request, token.host, asked.shown)
        if fingerprint == token.certificate:
            return Joined(found, certificate)
        new = replace(token, certificate=fingerprint, previous_certificate="")
        return await self._write(found, new, certificate, "token.certified", caller)

    def _certificate(self, request: str, host: str, shown: str) -> tuple[str, str]:
        """What is signed, and the sha256 of what the host will show. Raises: Invalid."""
        sign = self.signer() if request else None
        if sign is None:
            return "", shown
        pem = sign(request, host)
        return pem, hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    async def _write(
        self,
        old: Versioned[Token],
        new: Token,
        certificate: str,
        kind: str,
        caller: Caller,
        *,
        guard: Entry | None = None,
        dropped: Sequence[Versioned[Token]] = (),
    ) -> Joined:
        key = keys.token(new.id)
        checks: list[Check] = [Unchanged(key, old.version)]
        writes: list[Write] = [Put(key, codec.encode(new))]
        changes = [Changed(kind, key, public(old.value), public(new))]
        for one in dropped:
            gone = keys.token(one.value.id)
            checks.append(Unchanged(gone, one.version))
            writes.append(Delete(gone))
            changes.append(Changed("token.deleted", gone, public(one.value), None))
        if kind == "host.joined":  # the same guard that orders all changes of tokens
            version = 0 if guard is None else guard.version
            checks.append(Unchanged(keys.TOKEN_GUARD, version) if guard else Absent(keys.TOKEN_GUARD))
            writes.append(Put(keys.TOKEN_GUARD, b'{"v":1,"n":%d}' % version))
        who = replace(caller, actor=f"host:{new.host}")
        revision = await self._writer.commit(checks, writes, who, *changes)
        return Joined(Versioned(new, revision), certificate)


def not_good() -> Unauthenticated:
    return Unauthenticated(
        "the join token is not good: unknown, used, or expired",
        fix="have another one made: 'kvnet host join-token NAME'",
    )


def _token(entry: Entry | None) -> Versioned[Token] | None:
    try:
        return None if entry is None else Versioned(codec.decode(Token, entry.value), entry.version)
    except StoreBroken:
        return None


def _of_host(host: str, entries: Iterable[Entry]) -> list[Versioned[Token]]:
    found = [one for one in map(_token, entries) if one is not None]
    return [one for one in found if one.value.role is Role.HOST and one.value.host == host]


def _certificates(token: Token) -> set[str]:
    return {token.certificate, token.previous_certificate} - {""}
