"""How networks, endpoints and hosts are: `ready`, `converged`, and the problems that hosts report.

One vocabulary for all three, made from memory at one moment. Says `unknown` where nobody can know: of what a host that
is down has in its kernel, and of everything while the store is not believed or not heard. `since` is evidence (the
journal's time, a session's begin, a host's own report), never the moment of the question. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from controller.reports import OF_THE_HOST, PREVENTING
from controller.rolls import Roll
from controller.standing import Standing
from controller.state import State
from controller.views import Convergence, HostStatus, Status, StatusCondition
from kvnet.model import Condition, Endpoint, HostState, Network, NetworkState, Versioned

READY, CONVERGED, PROBLEM = "ready", "converged", "problem"
TRUE, FALSE, UNKNOWN = "true", "false", "unknown"
STALE_AFTER_S = 10.0
MAX_NAMED = 5
# Told in every network, and of none in particular.
HOST_WIDE = OF_THE_HOST | {
    "dns-port-taken",
    "dns-unavailable",
    "docker-away",
    "forward-blocked",
    "neighbours-full",
    "repairs-paused",
}

PLANNED: Status = tuple(
    StatusCondition(kind, UNKNOWN, "planned", "it does not exist yet") for kind in (READY, CONVERGED)
)


class Statuses:
    def __init__(self, state: State, standing: Standing) -> None:
        self._state = state
        self._standing = standing

    def look(self) -> Look:
        return Look(self._state, self._doubt())

    def _doubt(self) -> tuple[str, str, float | None] | None:
        """Why nothing can be said now: the reason, a sentence, and since when."""
        trouble = self._standing.trouble
        if trouble is not None:
            return "store-not-believed", trouble.detail, self._standing.troubled_since
        stale_since = self._state.stale_since
        if stale_since is not None and self._state.now() - stale_since > STALE_AFTER_S:
            return "store-away", "the controller is cut off from its store; what it shows is as old", stale_since
        return None


class Look:
    """What is so at one moment: for one answer, and not to be kept."""

    def __init__(self, state: State, doubt: tuple[str, str, float | None] | None) -> None:
        self._state = state
        self.doubt = doubt
        # Most of a long list was written by few commits, and is as far as its network is.
        self._converged: dict[tuple[str, int, float | None], StatusCondition] = {}
        self._told: dict[tuple[str, int], Convergence] = {}

    def roll(self, network: str) -> Roll:
        return self._state.rolls.of(network)

    def applied(self, endpoint: Versioned[Endpoint]) -> Convergence:
        wanted = endpoint.value.network, endpoint.version
        told = self._told.get(wanted)
        if told is None:
            told = self._told[wanted] = self.roll(endpoint.value.network).told(endpoint.version)
        return told

    def applied_of(self, network: str) -> Convergence:
        """Whether its hosts have the newest change of a network."""
        return self.roll(network).told(self._state.latest_change(network))

    def network(self, network: Versioned[Network]) -> Status:
        id_ = network.value.id
        wanted = self._state.latest_change(id_)
        return (
            self._ready(lambda: self._network_ready(network)),
            self._ready(lambda: self._applied(id_, wanted), CONVERGED),
            *self._problems_of(id_),
        )

    def _network_ready(self, network: Versioned[Network]) -> StatusCondition:
        it = network.value
        if it.state is not NetworkState.ACTIVE:
            detail = "it is being deleted" if it.state is NetworkState.DELETING else "its name is still to come"
            since = self._state.events.moment(network.version)
            return StatusCondition(READY, FALSE, it.state.value, detail, since=since or it.created_at)
        carriers = sorted(self._state.hosts_of(it.id))
        if not carriers:
            return StatusCondition(READY, TRUE, "no-hosts", "it has no endpoints yet", since=it.created_at)
        sessions = [living.value.since for host in carriers if (living := self._state.alive.get(host)) is not None]
        down = [host for host in carriers if self._state.alive.get(host) is None]
        if not sessions:
            return self._all_down(READY, down)
        prevented = [
            (told.since, host, told) for host in carriers if host not in down for told in self._preventing(it.id, host)
        ]
        if prevented:
            since, host, told = min(prevented, key=lambda one: one[:2])
            return StatusCondition(READY, FALSE, told.code, f"on host {host}: {told.detail}", since=since)
        cleared = [at for host in carriers if (at := self._state.reports.cleared_at(it.id, host)) is not None]
        since = max(it.created_at, min(sessions), *cleared)
        return StatusCondition(READY, TRUE, "active", _down(down), since=since)

    def _preventing(self, network: str, host: str) -> Iterator[Condition]:
        seen = self._state.reports.of(network).get(host)
        return (told for told in (seen.conditions if seen is not None else ()) if told.code in PREVENTING)

    def _problems_of(self, network: str) -> Iterator[StatusCondition]:
        for host, seen in sorted(self._state.reports.of(network).items()):
            yield from self._reported(host, seen.conditions)

    def endpoint(self, endpoint: Versioned[Endpoint]) -> Status:
        it = endpoint.value
        seen = self._state.reports.of(it.network).get(it.host)
        changed_at = self._state.events.moment(endpoint.version) or it.created_at
        return (
            self._ready(lambda: self._endpoint_ready(endpoint, changed_at)),
            self._ready(lambda: self._applied(it.network, endpoint.version, changed_at), CONVERGED),
            *(self._reported(it.host, seen.conditions) if seen is not None and seen.conditions else ()),
        )

    def _endpoint_ready(self, endpoint: Versioned[Endpoint], changed_at: float) -> StatusCondition:
        it = endpoint.value
        session = self._state.alive.get(it.host)
        if session is None:
            since = self._state.down_since(it.host)
            return StatusCondition(READY, UNKNOWN, "host-down", f"host {it.host} is down", since=since)
        told = min(self._preventing(it.network, it.host), key=lambda one: one.since, default=None)
        if told is not None:
            return StatusCondition(READY, FALSE, told.code, told.detail, since=told.since)
        if self.roll(it.network).living.get(it.host, 0) < endpoint.version:
            return StatusCondition(READY, FALSE, "behind", f"host {it.host} has not applied it yet", since=changed_at)
        seen = self._state.reports.of(it.network).get(it.host)
        has_interface = seen.has_interface(it.id) if seen is not None else None
        if has_interface is False:
            return StatusCondition(READY, FALSE, "not-attached", "no workload has its interface", since=it.created_at)
        reports = self._state.reports
        later = (reports.attached_at(it.id) or 0.0, reports.cleared_at(it.network, it.host) or 0.0)
        since = max(it.created_at, session.value.since, *later)
        if has_interface is None:
            return StatusCondition(READY, UNKNOWN, "not-told", f"host {it.host} does not say", since=since)
        return StatusCondition(READY, TRUE, "attached", since=since)

    def host(self, status: HostStatus) -> Status:
        seen = status.observed.networks if status.observed is not None else {}
        told = {network: one.conditions for network, one in seen.items()}
        return (
            self._ready(lambda: self._host_ready(status, [c for some in told.values() for c in some])),
            self._ready(lambda: self._host_applied(status), CONVERGED),
            *self._reported(status.host.name, self._named(told)),
        )

    def _host_ready(self, status: HostStatus, told: Iterable[Condition]) -> StatusCondition:
        host = status.host
        if host.state is not HostState.ACTIVE:
            since = self._state.events.moment(status.version)
            return StatusCondition(READY, FALSE, host.state.value, "it is being removed", since=since)
        session = self._state.alive.get(host.name)
        if session is None:
            detail = (
                "its worker was never seen alive" if status.last_seen is None else "its worker gives no sign of life"
            )
            return StatusCondition(READY, FALSE, "down", detail, since=status.down_since)
        if status.observed is None:
            detail = "its worker is starting: it has not reported yet"
            return StatusCondition(READY, FALSE, "starting", detail, since=session.value.since)
        worst = min((one for one in told if one.code in OF_THE_HOST), key=lambda one: one.since, default=None)
        if worst is not None:
            return StatusCondition(READY, FALSE, worst.code, worst.detail, since=worst.since)
        cleared = self._state.reports.cleared_at("", host.name)
        return StatusCondition(READY, TRUE, "alive", since=max(session.value.since, cleared or 0.0))

    def _host_applied(self, status: HostStatus) -> StatusCondition:
        if not status.alive:
            return StatusCondition(CONVERGED, UNKNOWN, "down", "it is down", since=status.down_since)
        behind = sorted(network for network, lag in status.lag.items() if lag)
        seen = status.observed.networks if status.observed is not None else {}
        if behind:
            name = status.host.name
            known = [since for n in behind if (since := self._state.behind_since(n, name)) is not None]
            names = [self._name(network) for network in behind]
            return StatusCondition(CONVERGED, FALSE, "behind", f"in {_few(names)}", since=min(known, default=None))
        session = self._state.alive.get(status.host.name)
        began = session.value.since if session is not None else None
        if not status.lag:
            return StatusCondition(CONVERGED, TRUE, "no-networks", "it has no endpoints", since=began)
        since = max((s for n in status.lag if n in seen and (s := seen[n].since)), default=began)
        return StatusCondition(CONVERGED, TRUE, "applied", since=since)

    def _named(self, told: dict[str, tuple[Condition, ...]]) -> list[Condition]:
        """What is told of a network names it; what is told of several is said once, with the earliest moment."""
        found: dict[tuple[str, str], list[tuple[str, float]]] = {}
        for network, conditions in told.items():
            for one in conditions:
                found.setdefault((one.code, one.detail), []).append((network, one.since))
        return [
            Condition(code, f"{self._scope(code, [n for n, _ in where])}{detail}", min(since for _, since in where))
            for (code, detail), where in found.items()
        ]

    def _scope(self, code: str, networks: Sequence[str]) -> str:
        if code in HOST_WIDE:
            return ""
        return f"network{'s' * (len(networks) != 1)} {_few(sorted(self._name(one) for one in networks))}: "

    def _name(self, network: str) -> str:
        found = self._state.networks.get(network)
        return found.value.name if found is not None else network

    def _ready(self, judge: Callable[[], StatusCondition], kind: str = READY) -> StatusCondition:
        if self.doubt is None:
            return judge()
        reason, detail, since = self.doubt
        return StatusCondition(kind, UNKNOWN, reason, detail, since=since)

    def _applied(self, network: str, wanted: int, changed_at: float | None = None) -> StatusCondition:
        """Whether the living hosts of a network have `wanted`, of what changed then; without that, of all of it."""
        known = self._converged.get((network, wanted, changed_at))
        if known is None:
            known = self._converged[network, wanted, changed_at] = self._find_applied(network, wanted, changed_at)
        return known

    def _find_applied(self, network: str, wanted: int, changed_at: float | None) -> StatusCondition:
        roll = self.roll(network)
        if roll.slowest is None:
            if roll.away:
                return self._all_down(CONVERGED, roll.away)
            found = self._state.networks.get(network)
            return StatusCondition(CONVERGED, TRUE, "no-hosts", since=found.value.created_at if found else None)
        waiting = roll.behind(wanted)
        if waiting:
            version = wanted if changed_at is not None else 0
            moments = [self._state.behind_since(network, host, version) or changed_at for host in waiting]
            since = min((at for at in moments if at is not None), default=None)
            return StatusCondition(CONVERGED, FALSE, "behind", f"waiting for {_few(waiting)}", since=since)
        reports = self._state.reports.of(network)
        known = [reports[host].since for host in roll.living if host in reports and reports[host].since]
        detail = f"not waiting for {_few(roll.away)}, which {_are(roll.away)} down" if roll.away else ""
        return StatusCondition(CONVERGED, TRUE, "applied", detail, since=max(known, default=changed_at))

    def _all_down(self, kind: str, hosts: Sequence[str]) -> StatusCondition:
        """Nobody can tell, since the last of them went."""
        known = [self._state.down_since(host) for host in hosts]
        since = None if None in known else max((one for one in known if one is not None), default=None)
        return StatusCondition(kind, UNKNOWN, "hosts-down", _down(hosts), since=since)

    def _reported(self, host: str, conditions: Iterable[Condition]) -> Iterator[StatusCondition]:
        """As the host told; of one that is down nobody knows whether it is still so."""
        if self._state.alive.get(host) is not None:
            return (StatusCondition(PROBLEM, TRUE, c.code, c.detail, host, c.since) for c in conditions)
        return (
            StatusCondition(PROBLEM, UNKNOWN, c.code, f"told before the host went down: {c.detail}", host, c.since)
            for c in conditions
        )


def _down(hosts: Sequence[str]) -> str:
    return f"{_few(hosts)} {_are(hosts)} down" if hosts else ""


def _are(hosts: Sequence[str]) -> str:
    return "is" if len(hosts) == 1 else "are"


def _few(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
