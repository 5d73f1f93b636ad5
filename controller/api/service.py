"""What the handlers of one controller share: the cluster, the store's pulse, the metrics, and the word to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry

from backends.store import Store, StoreError
from controller.api import render
from controller.api.measure import HttpMetrics
from controller.cluster import Cluster
from controller.fanout import Fanout
from controller.security.authentication import Authenticator, Credentials, not_good
from controller.security.endings import Endings
from controller.security.limits import Failures, Streams
from controller.security.principal import Principal
from controller.security.sight import Sight, is_limited
from kvnet import keys
from kvnet.errors import ControllerUnreachable, StoreUnavailable
from kvnet.security import Role

if TYPE_CHECKING:
    from controller.security.certificates import Certificates

PULSE_TIMEOUT_S = 2.0
PULSE_KEPT_S = 1.0
STALE_AFTER_S = 10.0
MAX_VIEWS = 256


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


class View(NamedTuple):
    """The whole cluster, and as it is seen by those who see alike."""

    whole: Cluster
    sight: Sight
    seen: Cluster


@dataclass
class Service:
    """`stopping` is set when the server begins to stop: whoever streams must end at once.

    `is_in_clear`: beyond this machine, so that whoever listens there reads tokens.
    `certificates`: what TLS is spoken with; None = requests come in clear.
    """

    store: Store
    registry: CollectorRegistry
    metrics: HttpMetrics
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    opened: Cluster | None = None
    certificates: Certificates | None = None
    is_insecure: bool = False
    is_in_clear: bool = False
    streams: Streams = field(default_factory=Streams)
    failures: Failures = field(default_factory=Failures)
    authenticator: Authenticator = field(init=False)
    endings: Endings = field(init=False)
    _views: dict[Hashable, View] = field(default_factory=dict)
    _fanout: Fanout | None = None
    _pulse: Check | None = None
    _felt_at: float = 0.0
    _feeling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        def known() -> Credentials | None:
            return None if self.opened is None else self.opened.credentials

        self.authenticator = Authenticator(known, self.now, is_insecure=self.is_insecure)
        self.endings = Endings(known, self.now)

    @property
    def cluster(self) -> Cluster:
        if self.opened is None:
            raise StoreUnavailable("the controller is starting", fix="repeat in a moment")
        return self.opened

    def view(self, who: Principal) -> Cluster:
        """The cluster as somebody sees it; for reading."""
        return self._seen(who, self.cluster) if is_limited(who) else self.cluster

    def view_of_scope(self, who: Principal) -> Cluster:
        """As `view`, by the labels alone: also of a network that a host does not take part in yet."""
        return self._seen(replace(who, role=Role.VIEWER, host=""), self.cluster) if who.scope else self.cluster

    def sight(self, who: Principal) -> Sight | None:
        """None: sees everything."""
        return self._view(who, self.cluster).sight if is_limited(who) else None

    def _seen(self, who: Principal, cluster: Cluster) -> Cluster:
        return self._view(who, cluster).seen

    def _view(self, who: Principal, cluster: Cluster) -> View:
        key = (who.host, who.grants, tuple(sorted(who.scope.items())))
        found = self._views.get(key)
        if found is None or found.whole is not cluster:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            sight = cluster.sight(who)
            found = self._views[key] = View(cluster, sight, cluster.seen(sight))
        return found

    @property
    def fanout(self) -> Fanout:
        """One for all event streams of this process."""
        if self._fanout is None:
            self._fanout = self.cluster.fanout(render.change)
        return self._fanout

    def require_believed(self) -> None:
        """
        Raises:
            StoreWentBack: the store is not what this controller has seen of it, so nothing is changed.
        """
        if self.opened is not None:
            self.opened.standing.require()

    async def unless_stopping(self, wait: Coroutine[Any, Any, Any], who: Principal) -> None:
        """Wait, but not beyond the word to stop, or the end of the credential: what is known then is known."""
        with self.endings.held(who) as ended:
            waiting = asyncio.create_task(wait)
            ends = [asyncio.create_task(self.stopping.wait()), asyncio.create_task(ended.wait())]
            try:
                await asyncio.wait((waiting, *ends), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await waiting
            finally:
                for one in (waiting, *ends):
                    one.cancel()

    def require_still_good(self, who: Principal) -> None:
        """
        Raises:
            Unauthenticated: the credential ended since the request began.
        """
        if self.endings.is_over(who):
            raise not_good()

    async def unless_stopped(self, asked: Coroutine[Any, Any, dict[str, Any]], who: Principal) -> dict[str, Any]:
        """What hosts answer, unless the controller stops meanwhile: nobody waits for them then.

        Raises:
            ControllerUnreachable: it stops.
            Unauthenticated: the credential ended meanwhile.
            KvnetError: what comes of the question.
        """
        found: list[dict[str, Any]] = []

        async def hold() -> None:
            found.append(await asked)

        await self.unless_stopping(hold(), who)
        self.require_still_good(who)
        if not found:
            raise ControllerUnreachable("the controller is stopping", fix="ask another one, or this one again")
        return found[0]

    @property
    def warnings(self) -> list[dict[str, str]]:
        """What works, and should not stay so; as it is answered."""
        return [*self._in_clear(), *self._expiring()]

    def _in_clear(self) -> list[dict[str, str]]:
        if not self.is_in_clear or self.opened is None or not self.opened.credentials.are_required:
            return []
        return [
            {
                "code": "tokens-in-clear",
                "detail": "this controller listens beyond its machine without TLS: who is on the way reads the tokens",
                "fix": "start it with --tls-cert and --tls-key, or --ca; or let it listen on loopback",
            }
        ]

    def _expiring(self) -> list[dict[str, str]]:
        detail = "" if self.certificates is None else self.certificates.expiring
        if not detail:
            return []
        fix = "put a new one there ('kvnet ca issue controller' makes one); no restart is needed"
        return [{"code": "certificate-expires", "detail": detail, "fix": fix}]

    async def checks(self) -> list[Check]:
        """What must hold before traffic may come. Asks the store at most once a second, however often it is called."""
        if self.opened is None:
            return [Check("mirrors", False, "the controller is starting")]
        if self.stopping.is_set():
            return [Check("running", False, "the controller is stopping")]
        return [await self._store_check(), self._mirror_check(self.opened), self._state_check(self.opened)]

    def _state_check(self, cluster: Cluster) -> Check:
        trouble = cluster.standing.trouble
        return Check("store-state", trouble is None, "believed" if trouble is None else trouble.detail)

    def _mirror_check(self, cluster: Cluster) -> Check:
        stale_since = cluster.status().stale_since
        behind = 0.0 if stale_since is None else self.now() - stale_since
        detail = "in step" if stale_since is None else f"cut off from the store for {behind:.0f} s"
        return Check("mirrors", behind < STALE_AFTER_S, detail)

    async def _store_check(self) -> Check:
        async with self._feeling:
            if self._pulse is None or self.clock() - self._felt_at >= PULSE_KEPT_S:
                self._pulse = await self._feel()
                self._felt_at = self.clock()
            return self._pulse

    async def _feel(self) -> Check:
        started_at = self.clock()
        try:
            async with asyncio.timeout(PULSE_TIMEOUT_S):
                found = await self.store.get(keys.CLUSTER)
        except TimeoutError:
            return Check("store", False, f"no answer within {PULSE_TIMEOUT_S:.0f} s")
        except StoreError as error:
            return Check("store", False, str(error) or type(error).__name__)
        if found is None:
            return Check("store", False, "the store is empty: meta/cluster is gone")
        return Check("store", True, f"answered in {(self.clock() - started_at) * 1000:.1f} ms")
