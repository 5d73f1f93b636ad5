"""Runs a test of who reaches whom: asks the workers to listen, to send, and what they counted; judges, and tells.

One test may ask every host a few questions, many at once and each bounded. Nothing is written but the questions, and
nothing is left behind: a worker stops listening by itself when its controller dies.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.connectivity import links, paths
from controller.connectivity.choice import Choice, choose, needed_sizes
from controller.connectivity.links import Crossing, Silence, Verdict
from controller.connectivity.told import Asked, Introduction, Sent, Watched
from controller.questions import Questions
from controller.requests import Caller
from controller.state import State
from kvnet.errors import Invalid, KvnetError, NotFound, ProbeBusy
from kvnet.model import Endpoint, Host, Network
from kvnet.rules import shown

KIND = "probe"
MAX_HOSTS = 128
SMALL, REPEAT, ECHOES = 20, 3, 5
LISTEN_TIMEOUT_S, SEND_TIMEOUT_S, COLLECT_TIMEOUT_S = 6.0, 20.0, 8.0
SENDING_S = 60.0  # no round begins later
LISTEN_S = SENDING_S + SEND_TIMEOUT_S + 2 * COLLECT_TIMEOUT_S
PAIRS_AT_ONCE = 128
SMALLEST, LADDER, ROUNDS = 576, 32, 3
MAX_PAIRS = 65_536
MAX_ENDPOINTS = 1000
Members = Mapping[str, Sequence[Endpoint]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to test. `networks`, `hosts`: None = all. Endpoints of a host that is not named are left alone."""

    networks: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    tries_hosts: bool = True
    tries_endpoints: bool = True
    all_endpoints: bool = False


@dataclass(slots=True)
class _Test:
    """A test while it runs. `order`: the hosts by their numbers in it. `until`: when its last round may begin.

    `untried`: pairs that there was no time for.
    """

    session: str
    order: tuple[str, ...]
    hosts: Mapping[str, Host]
    caller: Caller
    until: float
    untried: set[int] = field(default_factory=set)
    introductions: dict[str, Introduction] = field(default_factory=dict)
    silent: dict[str, KvnetError] = field(default_factory=dict)
    sent: dict[tuple[str, str], Sent] = field(default_factory=dict)
    asked: dict[int, Asked] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)
    passes: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def listening(self) -> list[str]:
        return [name for name in self.order if name in self.introductions]

    @property
    def living(self) -> list[str]:
        """Those that have answered every time."""
        return [name for name in self.listening if name not in self.silent]

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.until

    def number(self, host: str) -> int:
        return self.order.index(host)


class Connectivity:
    def __init__(self, state: State, questions: Questions, rng: random.Random) -> None:
        self._state = state
        self._questions = questions
        self._rng = rng

    async def test(self, wish: Wish, caller: Caller) -> dict[str, Any]:
        """
        Raises:
            NotFound: a network or host that was named.
            Invalid: more hosts than one test takes.
            ProbeBusy: the hosts take part in another test.
        """
        began = time.monotonic()
        networks = self._networks(wish)
        hosts = self._hosts(wish)
        endpoints = self._endpoints(wish, networks, hosts.keys())
        test = _Test(f"{self._rng.getrandbits(64):016x}", tuple(hosts), hosts, caller, began + SENDING_S)
        await self._listen(test)
        try:
            attached = {host: told.attached for host, told in test.introductions.items()}
            choice = await asyncio.to_thread(
                choose, networks, endpoints, attached, test.order, everything=wish.all_endpoints
            )
            needed = needed_sizes(hosts, networks, self._hosts_of(networks)) if wish.tries_hosts else {}
            await self._send(test, needed, choice)
            await self._collect(test, end=False)
            await self._look_for_sizes(test, needed)
        finally:
            await self._collect(test, end=True)
        found = self._links(test, needed) if wish.tries_hosts else []
        pairs = self._pairs(test, choice)
        return _answer(test, found, pairs, choice, time.monotonic() - began)

    def _networks(self, wish: Wish) -> list[Network]:
        if wish.networks is None:
            return sorted((found.value for found in self._state.networks.items.values()), key=lambda n: n.name)
        chosen = []
        for name in wish.networks:
            found = self._state.network_named(name)
            if found is None:
                raise NotFound(f"there is no network {shown(name)}", fix="'kvnet network ls' shows the networks")
            chosen.append(found.value)
        return chosen

    def _hosts(self, wish: Wish) -> dict[str, Host]:
        known = {name: found.value for name, found in sorted(self._state.hosts.items.items())}
        for name in wish.hosts or ():
            if name not in known:
                raise NotFound(f"there is no host {shown(name)}", fix="'kvnet host ls' shows the hosts")
        chosen = known if wish.hosts is None else {name: known[name] for name in sorted(set(wish.hosts))}
        if len(chosen) > MAX_HOSTS:
            raise Invalid.field("/hosts", f"{len(chosen)} hosts in one test", f"name {MAX_HOSTS} of them at most")
        return chosen

    def _hosts_of(self, networks: Iterable[Network]) -> dict[str, Collection[str]]:
        return {network.id: self._state.hosts_of(network.id).keys() for network in networks}

    async def _listen(self, test: _Test) -> None:
        wanted = {
            "step": "listen",
            "session": test.session,
            "hosts": list(test.order),
            "pairs": MAX_PAIRS,
            "seconds": LISTEN_S,
        }
        answers = await self._questions.ask_all(dict.fromkeys(test.order, wanted), KIND, test.caller, LISTEN_TIMEOUT_S)
        for host, answer in answers.items():
            if isinstance(answer, KvnetError):
                test.silent[host] = answer
            else:
                test.introductions[host] = Introduction.read(answer)
        busy = [error for error in test.silent.values() if isinstance(error, ProbeBusy)]
        if busy and not test.introductions:
            raise busy[0]

    def _endpoints(self, wish: Wish, networks: Sequence[Network], hosts: Collection[str]) -> Members:
        """Of the networks, on the hosts. Raises: Invalid: every pair of so many is more than anybody waits for."""
        if not wish.tries_endpoints:
            return {}
        found = {
            n.id: [e.value for e in self._state.endpoints_of(n.id).values() if e.value.host in hosts] for n in networks
        }
        count = sum(map(len, found.values()))
        if wish.all_endpoints and count > MAX_ENDPOINTS:
            raise Invalid.field(
                "/all_endpoints",
                f"{count} endpoints, each with every other",
                f"name networks or hosts with {MAX_ENDPOINTS} of them at most, or leave it out: one for each host then",
            )
        return found

    async def _send(self, test: _Test, needed: Mapping[tuple[str, str], int], choice: Choice) -> None:
        """Hosts with the first part of each one's endpoints, then the rest of those, for as long as there is time."""
        targets = {
            host: [self._target(test, host, other, needed[host, other]) for other in _others(test, host, needed)]
            for host in test.living
        }
        own: dict[str, list[dict[str, Any]]] = {}
        for number, pair in enumerate(choice.pairs):
            own.setdefault(pair.source.host, []).append(
                {
                    "pair": number,
                    "network": pair.network.id,
                    "from": pair.source.id,
                    "to": pair.target.id,
                    "family": pair.family,
                }
            )
        while any(targets.values()) or any(own.values()):
            if test.is_late:
                test.untried = {one["pair"] for pairs in own.values() for one in pairs}
                return
            parts = {
                host: {
                    "step": "send",
                    "session": test.session,
                    "targets": targets.pop(host, []),
                    "pairs": own.get(host, [])[:PAIRS_AT_ONCE],
                }
                for host in test.living
            }
            own = {host: pairs[PAIRS_AT_ONCE:] for host, pairs in own.items()}
            await self._ask_to_send(test, {h: part for h, part in parts.items() if part["targets"] or part["pairs"]})

    def _target(self, test: _Test, host: str, other: str, needed: int) -> dict[str, Any]:
        return {
            "to": test.number(other),
            "vni": next(iter(test.introductions[other].vnis), None),
            "small": SMALL,
            "sizes": [needed],
            "repeat": REPEAT,
            "echoes": ECHOES,
        }

    async def _ask_to_send(self, test: _Test, parts: Mapping[str, Mapping[str, Any]]) -> None:
        answers = await self._questions.ask_all(parts, KIND, test.caller, SEND_TIMEOUT_S)
        for host, answer in answers.items():
            if isinstance(answer, KvnetError):
                test.silent[host] = answer
                continue
            for one in answer["targets"]:
                test.sent.setdefault((host, test.order[one["to"]]), Sent()).add(one)
            for one in answer["pairs"]:
                test.asked[one["pair"]] = Asked.read(one)

    async def _collect(self, test: _Test, *, end: bool) -> None:
        wanted = {"step": "collect", "session": test.session, "end": end}
        living = test.listening if end else test.living
        answers = await self._questions.ask_all(dict.fromkeys(living, wanted), KIND, test.caller, COLLECT_TIMEOUT_S)
        for host, answer in answers.items():
            if isinstance(answer, KvnetError):
                test.silent.setdefault(host, answer)
            else:
                test.watched[host] = Watched.read(answer)

    async def _look_for_sizes(self, test: _Test, needed: Mapping[tuple[str, str], int]) -> None:
        """The largest packet that passes where the needed one does not: between what passed and what did not."""
        bounds = {
            (a, b): (SMALLEST, needed[a, b])
            for (a, b), sent in test.sent.items()
            if (a, b) in needed and a in test.watched and b in test.watched and sent.small
            if test.watched[b].arrived.get(test.number(a)) and not self._crossing(test, a, b, needed[a, b]).is_whole
        }
        for _ in range(ROUNDS):
            parts: dict[str, dict[str, Any]] = {}
            for (a, b), (low, high) in bounds.items():
                if high - low <= 1:
                    continue
                sizes = sorted({low + (high - low) * n // LADDER for n in range(LADDER)})
                part = parts.setdefault(a, {"step": "send", "session": test.session, "targets": []})
                part["targets"].append({"to": test.number(b), "vni": None, "sizes": sizes, "repeat": 2})
            if not parts or test.is_late:
                return
            await self._ask_to_send(test, parts)
            await self._collect(test, end=False)
            for (a, b), (_, high) in list(bounds.items()):
                passed = test.watched[b].sizes_from(test.number(a))
                largest = max((size for size in passed if size < needed[a, b]), default=0)
                if largest:
                    test.passes[a, b] = largest
                above = [size for size in test.sent[a, b].sized if size > largest]
                bounds[a, b] = (largest or SMALLEST, min(above, default=high))

    def _crossing(self, test: _Test, source: str, target: str, needed: int) -> Crossing:
        watched = test.watched[source]
        return Crossing(
            source,
            target,
            test.number(source),
            test.number(target),
            test.sent.get((source, target), Sent()),
            watched,
            test.watched[target],
            bool(test.introductions[target].vnis),
            needed,
            test.passes.get((source, target)),
            watched.refusals_of(str(test.hosts[target].underlay)),
        )

    def _links(self, test: _Test, needed: Mapping[tuple[str, str], int]) -> list[tuple[Verdict, dict[str, Any]]]:
        found = []
        for a in test.order:
            for b in (name for name in test.order if name != a):
                silent = _why_silent(test, a, b, needed)
                if silent is not None:
                    found.append((silent.verdict, silent.as_json()))
                    continue
                crossing = self._crossing(test, a, b, needed[a, b])
                verdict = links.judge(crossing)
                found.append((verdict, crossing.as_json(verdict)))
        return found

    def _pairs(self, test: _Test, choice: Choice) -> list[tuple[Verdict, dict[str, Any]]]:
        found = []
        for number, pair in enumerate(choice.pairs):
            near, far = test.watched.get(pair.source.host), test.watched.get(pair.target.host)
            if number in test.untried:
                choice.left_out["pairs that there was no time for"] += 1
                continue
            if number not in test.asked or near is None or far is None:
                choice.left_out["pairs whose host stopped answering"] += 1
                continue
            path = paths.Path(number, pair, test.asked[number], near, far)
            verdict = paths.judge(path)
            found.append((verdict, path.as_json(verdict)))
        return found


def _others(test: _Test, host: str, needed: Mapping[tuple[str, str], int]) -> list[str]:
    return [other for other in test.living if (host, other) in needed]


def _why_silent(test: _Test, a: str, b: str, needed: Mapping[tuple[str, str], int]) -> Silence | None:
    for host in (a, b):
        if host not in test.watched or host in test.silent:
            error = test.silent.get(host)
            detail = error.detail if error is not None else f"host {host} stopped answering"
            code = error.code if error is not None else "host-silent"
            return Silence(a, b, Verdict("no-answer", code, detail, error.fix if error is not None else ""))
    if (a, b) not in needed:
        detail = f"the underlay addresses {test.hosts[a].underlay} and {test.hosts[b].underlay} are of two families"
        fix = "give both workers an --underlay of the same family"
        return Silence(a, b, Verdict("blocked", "peer-unreachable", detail, fix))
    return None


def _answer(
    test: _Test,
    found: list[tuple[Verdict, dict[str, Any]]],
    pairs: list[tuple[Verdict, dict[str, Any]]],
    choice: Choice,
    took_s: float,
) -> dict[str, Any]:
    failures = sum(not verdict.is_ok for verdict, _ in (*found, *pairs))
    return {
        "ok": not failures and not test.silent,
        "failures": failures,
        "hosts": [
            {
                "name": name,
                "underlay": str(host.underlay),
                "mtu": host.mtu,
                "answers": name not in test.silent,
                "problem": _problem(test.silent[name]) if name in test.silent else None,
            }
            for name, host in test.hosts.items()
        ],
        "links": [told for _, told in found],
        "endpoints": [told for _, told in pairs],
        "not_tried": [{"what": what, "count": count} for what, count in sorted(choice.left_out.items())],
        "took_s": round(took_s, 3),
    }


def _problem(error: KvnetError) -> dict[str, Any]:
    return {"code": error.code, "detail": error.detail, "fix": error.fix}
