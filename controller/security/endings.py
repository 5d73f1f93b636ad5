"""What stays open for long ends with the credential that opened it: streams, watches, waits.

A credential ends when its token is removed, rotated or expires, or when the cluster begins to ask those whom it asked
nothing. Looked at twice: when the mirror brings a change, and when the time is over. Never ends what is done already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.security.authentication import Credentials
from controller.security.principal import Principal, Via

LOOK_AGAIN_S = 1.0  # the clock of the wall may jump


class Endings:
    def __init__(self, known: Callable[[], Credentials | None], now: Callable[[], float]) -> None:
        self._known = known
        self._now = now
        self._held: dict[str, set[_Held]] = {}
        self._heard: Credentials | None = None

    @contextmanager
    def held(self, principal: Principal, ended: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event that is set when the credential is no longer good; at once if it is not even now."""
        self._listen()
        held = _Held(principal, ended or asyncio.Event())
        place = _place(principal)
        self._held.setdefault(place, set()).add(held)
        self._look(held)
        try:
            yield held.ended
        finally:
            held.close()
            others = self._held[place]
            others.discard(held)
            if not others:
                del self._held[place]

    def is_over(self, principal: Principal) -> bool:
        """Whether what was proven a moment ago holds no longer."""
        if principal.expires_at is not None and self._now() >= principal.expires_at:
            return True
        known = self._known()
        if known is None or principal.via is Via.NOTHING:
            return False
        if principal.via is Via.OPEN:
            return known.are_required
        if not principal.token:
            return False
        token = known.get(principal.token)
        return token is None or token.version != principal.version

    def _listen(self) -> None:
        known = self._known()
        if known is not None and known is not self._heard:
            self._heard = known
            known.changed = self._on_change

    def _on_change(self, token_id: str) -> None:
        for held in tuple(self._held.get(token_id, ())):
            self._look(held)

    def _look(self, held: _Held) -> None:
        if self.is_over(held.principal):
            held.ended.set()
        elif held.principal.expires_at is not None:
            left_s = held.principal.expires_at - self._now()
            held.look_again(min(max(left_s, 0.0), LOOK_AGAIN_S), lambda: self._look(held))


class _Held:
    __slots__ = ("_timer", "ended", "principal")

    def __init__(self, principal: Principal, ended: asyncio.Event) -> None:
        self.principal = principal
        self.ended = ended
        self._timer: asyncio.TimerHandle | None = None

    def look_again(self, after_s: float, look: Callable[[], None]) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_later(after_s, look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _place(principal: Principal) -> str:
    return principal.token if principal.via is not Via.OPEN else ""
