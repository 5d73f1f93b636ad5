"""Renews this host's certificate before it expires, with the key that it has, and shows it from then on.

Begins when a third of its time is left, and goes on until it succeeds: nothing else suffers meanwhile. Connections that
are open go on with the certificate that they began with. Never touches the token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Protocol

from kvnet.errors import KvnetError
from worker import identity
from worker.identity import About, Identity
from worker.keymaking import Request
from worker.log import Log
from worker.ports import Time

SHARE_LEFT = 1 / 3
LOOK_S = 3600.0
RETRY_S = 600.0
SOON_S = 7 * 86_400.0


class Certifies(Protocol):
    """Raises: KvnetError."""

    async def certificate(self, request: str) -> dict[str, Any]: ...


class Renewal:
    """`show`: called when there is a new certificate in the file. `make`: a signing request for the key in a file."""

    def __init__(
        self,
        found: Identity,
        controller: Certifies,
        make: Callable[[], Any],
        show: Callable[[], None],
        *,
        time: Time,
        log: Log,
    ) -> None:
        self._about = found.about
        self._directory = found.directory
        self._controller = controller
        self._make = make
        self._show = show
        self._time = time
        self._log = log

    async def run(self) -> None:
        while True:
            await self._time.sleep(await self.once())

    async def once(self) -> float:
        """Renew it if it is time; the seconds until the next look."""
        now = self._time.now()
        if not is_due(self._about, now):
            return LOOK_S * self._time.rng.uniform(0.8, 1.0)
        try:
            made: Request = await self._make()
            answer = await self._controller.certificate(made.request)
            self._about = await asyncio.to_thread(self._keep, answer, now)
            self._show()
        except (KvnetError, OSError, KeyError, TypeError, ValueError) as error:
            left_s = self._about.expires_at - now
            tell = self._log.warning if left_s < SOON_S else self._log.info
            fix = getattr(error, "fix", "")
            tell("certificate-not-renewed", detail=f"{error}; {left_s / 86_400:.1f} days are left", fix=fix)
            return RETRY_S * self._time.rng.uniform(0.5, 1.0)
        self._log.info("certificate-renewed", days=round((self._about.expires_at - now) / 86_400, 1))
        return LOOK_S

    def _keep(self, answer: dict[str, Any], now: float) -> About:
        about = replace(self._about, certified_at=now, expires_at=float(answer["expires_at"]))
        identity.write(self._directory / identity.CERTIFICATE, answer["certificate"])
        identity.write(self._directory / identity.ABOUT, json.dumps(asdict(about)))
        return about


def is_due(about: About, now: float) -> bool:
    if not about.expires_at:
        return False
    return about.expires_at - now < SHARE_LEFT * (about.expires_at - about.certified_at)
