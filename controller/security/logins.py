"""Logs browsers in: makes cookies, and says which token one stands for. The keys are the store's, mirrored here.

A key is made by the first login that needs one, by compare-and-swap: replicas that do it at once end with the same one.
Keeps nothing of who is logged in: a cookie ends by its time, with its token, or with the token's secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backends.mirror import Mirror
from backends.store import Absent, Conflict, Put, Unchanged, Unknown
from controller.journal import Changed
from controller.requests import Caller
from controller.security.authentication import COOKIE_UNTIL, Credentials
from controller.security.cookies import KEY_BYTES, LIFE_S, Keys, needs_key, opened, sealed, value_in, with_new_key
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import StoreBroken
from kvnet.security import Token

COOKIES = keys.secret("cookies")


class Logins:
    def __init__(
        self,
        secrets: Mirror,
        writer: Writer,
        credentials: Credentials,
        token_bytes: Callable[[int], bytes],
        patience_s: float,
    ) -> None:
        self._secrets = secrets
        self._writer = writer
        self._credentials = credentials
        self._token_bytes = token_bytes
        self._patience_s = patience_s
        self._read: tuple[int, Keys | None] = (0, None)

    async def begin(self, token: Token, caller: Caller) -> tuple[str, float]:
        """A cookie's value, and until when it is good.

        Raises:
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreWentBack
        """
        now = self._writer.now()
        until = now + LIFE_S if token.expires_at is None else min(now + LIFE_S, token.expires_at)
        known = self._keys()
        if known is None or needs_key(known, now):
            known = await self._new_key(caller)
        return sealed(token, until, known), float(int(until))

    def token_in(self, scope: Mapping[str, Any]) -> str | None:
        """For the authenticator: the id of the token that the request's cookie stands for. Notes when it ends."""
        known = self._keys()
        value = next((value_in(v.decode("latin-1")) for name, v in scope["headers"] if name == b"cookie"), "")
        if known is None or not value:
            return None
        login = opened(value, known, self._token, self._writer.now())
        if login is None:
            return None
        if isinstance(scope, dict):
            scope[COOKIE_UNTIL] = login.until
        return login.token

    def _token(self, token_id: str) -> Token | None:
        found = self._credentials.get(token_id)
        return None if found is None else found.value

    def _keys(self) -> Keys | None:
        entry = self._secrets.entries.get(COOKIES)
        if entry is None:
            return None
        if self._read[0] != entry.version:
            try:
                self._read = (entry.version, codec.decode(Keys, entry.value))
            except StoreBroken:
                self._read = (entry.version, None)
        return self._read[1]

    async def _new_key(self, caller: Caller) -> Keys:
        turns = self._writer.turns("a key for logins could not be made")
        while True:
            await turns.next()
            entry = await self._writer.store.get(COOKIES)
            found = _decoded(entry.value) if entry is not None else None
            now = self._writer.now()
            if found is not None and not needs_key(found, now):
                return found
            wanted = with_new_key(found, self._token_bytes(KEY_BYTES).hex(), now)
            check = Absent(COOKIES) if entry is None else Unchanged(COOKIES, entry.version)
            # What is in it is nobody's to read, in the journal least of all.
            change = Changed("secret.rotated", COOKIES, None, b'{"keys":%d}' % len(wanted.keys))
            try:
                revision = await self._writer.commit([check], [Put(COOKIES, codec.encode(wanted))], caller, change)
                await self._secrets.until(revision, self._patience_s)
            except (Conflict, Unknown) as error:
                turns.failed(error)
                continue
            except TimeoutError:
                pass
            return wanted


def _decoded(value: bytes) -> Keys | None:
    try:
        return codec.decode(Keys, value)
    except StoreBroken:
        return None
