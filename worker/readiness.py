"""Whether a worker may give out interfaces now: it must be who it claims to be, and know what the store says.

Looks, and refuses with the reason; never waits.
"""

from __future__ import annotations

from kvnet.errors import ControllerUnreachable, KvnetError, StoreUnavailable
from worker.ports import Time
from worker.session import Lifeline
from worker.settings import Settings
from worker.source import Mode, Source
from worker.view import View

# Mirrors reconnect within this; those that do not would only make an attach wait for nothing.
STALE_S = 3.0


class Readiness:
    def __init__(self, settings: Settings, lifeline: Lifeline, source: Source, view: View, time: Time) -> None:
        self._settings = settings
        self._lifeline = lifeline
        self._source = source
        self._view = view
        self._time = time

    def require(self) -> None:
        """
        Raises:
            HostFenced, StoreUnavailable, ControllerUnreachable: not now.
            KvnetError: why the store is not believed.
        """
        if self._lifeline.is_disputed:
            self._lifeline.require_open()
        if self._source.mode() is not Mode.LIVE:
            doubt = self._source.doubt()
            if doubt is not None:
                raise doubt.error()
            raise self._store_away("since it started")
        self._lifeline.require_open()
        stale_since = self._view.stale_since
        if stale_since is not None and self._time.monotonic() - stale_since > STALE_S:
            raise self._store_away(f"for {self._time.monotonic() - stale_since:.0f} s")

    def _store_away(self, how_long: str) -> KvnetError:
        if self._settings.uses_gateway:
            return ControllerUnreachable(
                f"this worker has not heard from the controller at {self._settings.controller} {how_long}",
                fix="start the controller, or the worker with the right --controller",
            )
        return StoreUnavailable(
            f"this worker has not heard from the store {how_long}",
            fix="bring the store back, or start the worker with the right --store",
        )
