"""The use cases of tokens: create, find, rotate, remove; and whether the cluster asks for them.

They read the store itself, not a mirror: there are few, they are changed seldom, and whoever has the store but no
controller (`kvnet token create --store`) uses the same code. One guard orders all changes, so that no two tokens get
one name and no two removals take the last two admins. Never stores a secret, and never journals a hash.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from backends.store import Absent, Check, Conflict, Delete, Entry, Put, Revision, Store, Unchanged, Unknown, Write
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.requests import Caller
from kvnet import codec, keys
from kvnet.errors import Invalid, LastAdmin, NameTaken, NotFound, StoreBroken, TooMuchContention
from kvnet.model import Versioned
from kvnet.rules import shown
from kvnet.security import UNLIMITED, Authentication, Grant, Limits, Role, Token, TokenText, hash_of, new_token

ATTEMPTS = 16
MAX_TOKENS = 10_000
MAX_LIFE_S = 10 * 365 * 86_400.0
MAX_GRACE_S = 30 * 86_400.0


class Commits(Protocol):
    """`controller.writer.Writer`, or `journalled` where there is only a store."""

    async def commit(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision: ...


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """`expires_at`: seconds since the epoch; None = never."""

    name: str
    role: Role
    host: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    expires_at: float | None = None
    limits: Limits = UNLIMITED


class Made(NamedTuple):
    """`text` is shown once; nobody can find it out again."""

    token: Versioned[Token]
    text: TokenText


class Tokens:
    def __init__(
        self,
        store: Store,
        writer: Commits,
        now: Callable[[], float],
        entropy: Callable[[], TokenText] = lambda: new_token(secrets.token_hex, secrets.token_urlsafe),
    ) -> None:
        self._store = store
        self._writer = writer
        self._now = now
        self._entropy = entropy

    async def list(self) -> tuple[Versioned[Token], ...]:
        """By name. One that cannot be read is left out: nobody gets in with it."""
        with store_errors_told():
            found = (await self._read()).tokens
        return tuple(sorted(found, key=lambda one: (one.value.name, one.value.id)))

    async def get(self, id_or_name: str) -> Versioned[Token]:
        """Raises: NotFound."""
        return _named(await self.list(), id_or_name)

    async def has_admin(self) -> bool:
        """Whether somebody can come in who may do everything."""
        return any(_is_living_admin(one.value, self._now()) for one in await self.list())

    async def create_first(self, asked: TokenRequest, caller: Caller, text: TokenText) -> Made | None:
        """As `create`, with an own text; None if there is a token of an admin already.

        Raises:
            KvnetError: as `create`.
        """
        made = await self.create(asked, caller, text, is_first=True)
        return made if made.token.version else None

    async def create(
        self, asked: TokenRequest, caller: Caller, text: TokenText | None = None, *, is_first: bool = False
    ) -> Made:
        """The first token makes the cluster ask for one, everywhere. `text`: an own one, for a bootstrap.

        `is_first`: only if there is no token of an admin; the version is 0 if there is one.

        Raises:
            Invalid, NameTaken
            LastAdmin: the first one is not an admin's, so nobody could come in any more.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        now = self._now()
        if asked.expires_at is not None and not now < asked.expires_at <= now + MAX_LIFE_S:
            raise Invalid.field("/expires_at", "the token would never be good", "in the future, within ten years")
        if asked.grants and not asked.host:
            raise Invalid.field("/grants", "a grant without a host", "only tokens of hosts, and those to join with")
        text = text or self._entropy()
        token = Token(
            id=text.id,
            name=asked.name,
            role=asked.role,
            created_at=now,
            created_by=caller.actor,
            hash=hash_of(text.secret),
            host=asked.host,
            scope=dict(asked.scope),
            grants=asked.grants,
            expires_at=asked.expires_at,
            limits=asked.limits,
        )

        def change(seen: _Seen) -> _Step:
            if any(one.value == token for one in seen.tokens):
                return NOTHING  # the answer to the commit before was lost
            if is_first and any(_is_living_admin(one.value, now) for one in seen.tokens):
                raise _ThereIsOne
            _require_free_name(seen, token, now)
            if len(seen.tokens) >= MAX_TOKENS:
                raise Invalid(f"there are {len(seen.tokens)} tokens", fix="remove those that nobody uses")
            key = keys.token(token.id)
            writes: list[Write] = [Put(key, codec.encode(token)), *_expired(seen, now)]
            if seen.authentication is None and not seen.tokens:
                if not _is_living_admin(token, now):
                    raise _nobody_could_come_in()
                writes.append(Put(keys.AUTHENTICATION, codec.encode(Authentication(now, caller.actor))))
            return _Step([Absent(key)], writes, [Changed("token.created", key, None, public(token))])

        with store_errors_told():
            try:
                revision = await self._change(change, caller)
            except _ThereIsOne:
                revision = 0
        return Made(Versioned(token, revision), text)

    async def remove(self, id_or_name: str, caller: Caller) -> Revision:
        """Whoever uses it is refused from now on, on every replica within moments.

        Raises:
            NotFound
            LastAdmin: of a cluster that asks for tokens.
        """

        def change(seen: _Seen) -> _Step:
            if seen.is_repeated and not any(id_or_name in (one.value.id, one.value.name) for one in seen.tokens):
                return NOTHING
            found = _named(seen.tokens, id_or_name)
            _require_another_admin(seen, found.value, self._now())
            key = keys.token(found.value.id)
            changed = Changed("token.deleted", key, public(found.value), None)
            return _Step([Unchanged(key, found.version)], [Delete(key)], [changed])

        with store_errors_told():
            return await self._change(change, caller)

    async def rotate(self, id_or_name: str, caller: Caller, grace_s: float = 0.0) -> Made:
        """A new secret; the old one stays good for `grace_s`.

        Raises:
            NotFound
            Invalid: a token that is used once, or is a certificate and no secret, has nothing to rotate.
        """
        if not 0 <= grace_s <= MAX_GRACE_S:
            raise Invalid.field("/grace_s", f"{grace_s:g} s", "0 to 30 days")
        secret = self._entropy().secret
        made: list[Token] = []

        def change(seen: _Seen) -> _Step:
            found = _named(seen.tokens, id_or_name)
            old = found.value
            if made and old == made[0]:
                return NOTHING
            if old.role is Role.JOIN or not old.hash:
                raise Invalid(f"token {old.name!r} cannot be rotated", fix="make another one, and remove this one")
            until = self._now() + grace_s if grace_s else None
            new = replace(old, hash=hash_of(secret), previous=old.hash if grace_s else "", previous_until=until)
            made[:] = [new]
            key = keys.token(old.id)
            changed = Changed("token.rotated", key, public(old), public(new))
            return _Step([Unchanged(key, found.version)], [Put(key, codec.encode(new))], [changed])

        with store_errors_told():
            revision = await self._change(change, caller)
        return Made(Versioned(made[0], revision), TokenText(made[0].id, secret))

    async def require(self, is_required: bool, caller: Caller) -> Revision:
        """Whether everybody has to say who asks, everywhere.

        Raises:
            LastAdmin: nobody could come in any more.
        """

        def change(seen: _Seen) -> _Step:
            if is_required == (seen.authentication is not None):
                return NOTHING
            if seen.authentication is not None:
                was = seen.authentication
                changed = Changed("authentication.off", keys.AUTHENTICATION, was.value, None)
                return _Step([Unchanged(was.key, was.version)], [Delete(was.key)], [changed])
            if not any(_is_living_admin(one.value, self._now()) for one in seen.tokens):
                raise _nobody_could_come_in()
            data = codec.encode(Authentication(self._now(), caller.actor))
            changed = Changed("authentication.required", keys.AUTHENTICATION, None, data)
            return _Step([Absent(keys.AUTHENTICATION)], [Put(keys.AUTHENTICATION, data)], [changed])

        with store_errors_told():
            return await self._change(change, caller)

    async def _change(self, change: Callable[[_Seen], _Step], caller: Caller) -> Revision:
        """Decide on what the store has, commit, and decide again if somebody was first."""
        lost = 0
        for _ in range(ATTEMPTS):
            seen = await self._read(is_repeated=lost > 0)
            step = change(seen)
            if not step.writes:
                return seen.revision
            try:
                return await self._writer.commit(
                    [seen.guard, *step.checks], [seen.turn, *step.writes], caller, *step.changes
                )
            except Conflict:
                continue
            except Unknown:
                # What is looked at next shows whether it was written.
                lost += 1
                if lost > 1:
                    raise
        raise TooMuchContention("the tokens: others were faster every time", fix="repeat the request")

    async def _read(self, is_repeated: bool = False) -> _Seen:
        guard = await self._store.get(keys.TOKEN_GUARD)
        authentication = await self._store.get(keys.AUTHENTICATION)
        snapshot = await self._store.list(keys.TOKENS)
        return _Seen(guard, authentication, tuple(_readable(snapshot.entries)), snapshot.revision, is_repeated)


class _ThereIsOne(Exception):
    """There is an admin already."""


class _Step(NamedTuple):
    checks: Sequence[Check]
    writes: Sequence[Write]
    changes: Sequence[Changed]


NOTHING = _Step((), (), ())


class _Seen(NamedTuple):
    entry: Entry | None
    authentication: Entry | None
    tokens: tuple[Versioned[Token], ...]
    revision: Revision
    is_repeated: bool = False  # an answer was lost: it may be as it should be already

    @property
    def guard(self) -> Check:
        return Absent(keys.TOKEN_GUARD) if self.entry is None else Unchanged(keys.TOKEN_GUARD, self.entry.version)

    @property
    def turn(self) -> Write:
        """Another value each time: not every store versions an identical write."""
        return Put(keys.TOKEN_GUARD, b'{"v":1,"n":%d}' % (0 if self.entry is None else self.entry.version))


def public(token: Token) -> bytes:
    """For the journal: everything but what tells something of the secret."""
    return codec.encode(replace(token, hash="", previous="", joined_hash=""))


def _readable(entries: Sequence[Entry]) -> list[Versioned[Token]]:
    found = []
    for entry in entries:
        try:
            found.append(Versioned(codec.decode(Token, entry.value), entry.version))
        except StoreBroken:
            continue
    return found


def _named(tokens: Sequence[Versioned[Token]], id_or_name: str) -> Versioned[Token]:
    by_id = [one for one in tokens if one.value.id == id_or_name]
    found = by_id or [one for one in tokens if one.value.name == id_or_name]
    if not found:
        raise NotFound(f"there is no token {shown(id_or_name)}", fix="'kvnet token ls' shows them")
    return found[0]


def _require_free_name(seen: _Seen, token: Token, now: float) -> None:
    for one in seen.tokens:
        same = token.name in (one.value.name, one.value.id)
        if same and not one.value.is_expired(now):
            raise NameTaken(
                f"there is a token {token.name!r} already: {one.value.id}",
                fix="choose another name, or remove that one first",
                context={"name": token.name, "id": one.value.id},
            )


def _expired(seen: _Seen, now: float) -> list[Delete]:
    """Whoever makes a token clears a few away that nobody can use any more."""
    return [Delete(keys.token(one.value.id)) for one in seen.tokens if one.value.is_expired(now)][:10]


def _nobody_could_come_in() -> LastAdmin:
    return LastAdmin(
        "there is no token of an admin, so nobody could come in",
        fix="make one first: 'kvnet token create NAME --role admin'",
    )


def _is_living_admin(token: Token, now: float) -> bool:
    return token.role is Role.ADMIN and not token.scope and not token.is_expired(now)


def _require_another_admin(seen: _Seen, doomed: Token, now: float) -> None:
    if seen.authentication is None or not _is_living_admin(doomed, now):
        return
    if not any(_is_living_admin(one.value, now) and one.value.id != doomed.id for one in seen.tokens):
        raise LastAdmin(
            f"{doomed.name!r} is the last token of an admin: nobody could make another one",
            fix="make another one first: 'kvnet token create NAME --role admin'",
        )
