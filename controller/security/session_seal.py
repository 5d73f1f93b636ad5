"""Session ids as hosts get them: sealed, so that a host can refresh and end its own sessions and nobody else's.

The seal is a MAC over the host's name and the store's id, with a secret that all replicas share (`secrets/gateway`), so
that any of them knows what another one has given out. Made once, by whoever is first; read again when a seal does not
fit, for a restore without secrets makes a new one. A secret that changed costs every worker a new session, no more.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

from backends.store import Absent, Conflict, Put, SessionLost, Store
from controller.security.limits import Bucket
from kvnet import keys

SECRET = keys.secret("gateway")
SECRET_BYTES = 32
MAC_BYTES = 16
LOOKS_PER_S = 1.0
LOOKS_AT_ONCE = 5.0
MAX_TEXT = 512


def sealed(secret: bytes, host: str, session: str) -> str:
    return urlsafe_b64encode(_mac(secret, host, session) + session.encode()).decode().rstrip("=")


def unsealed(secret: bytes, host: str, text: str) -> str | None:
    """The store's id; None: this host was never given this."""
    if len(text) > MAX_TEXT or not text.isascii():
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        session = data[MAC_BYTES:].decode()
    except ValueError:
        return None
    fits = hmac.compare_digest(data[:MAC_BYTES], _mac(secret, host, session))
    return session if fits and sealed(secret, host, session) == text else None


def _mac(secret: bytes, host: str, session: str) -> bytes:
    """No host's name has a slash, so no pair can be read as another one."""
    return hmac.digest(secret, f"{host}/{session}".encode(), "sha256")[:MAC_BYTES]


class Seals:
    def __init__(self, store: Store, token_bytes: Callable[[int], bytes], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._token_bytes = token_bytes
        self._monotonic = monotonic
        self._secret = b""
        self._looks = Bucket(LOOKS_AT_ONCE, LOOKS_PER_S, LOOKS_AT_ONCE, monotonic())

    async def seal(self, host: str, session: str) -> str:
        """
        Raises:
            StoreError
        """
        return sealed(self._secret or await self._read(), host, session)

    async def open(self, host: str, text: str) -> str:
        """
        Raises:
            SessionLost: it is not one of the host's.
            StoreError
        """
        session = unsealed(self._secret or await self._read(), host, text)
        if session is None and not self._looks.take(self._monotonic()):
            session = unsealed(await self._read(), host, text)
        if session is None:
            raise SessionLost(f"host {host} has no such session")
        return session

    async def _read(self) -> bytes:
        entry = await self._store.get(SECRET)
        if entry is None:
            made = self._token_bytes(SECRET_BYTES).hex().encode()
            with suppress(Conflict):  # another replica was first
                await self._store.commit([Absent(SECRET)], [Put(SECRET, made)])
            entry = await self._store.get(SECRET)
        if entry is None or len(entry.value) < SECRET_BYTES:
            raise SessionLost("the secret of sessions is gone; a new one is being made")
        self._secret = sha256(entry.value).digest()
        return self._secret
