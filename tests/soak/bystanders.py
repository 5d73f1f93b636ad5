"""Pairs of workloads that nobody touches, and what became of their pings.

On every kind of network: two on one bridge of each host, one on each host of an overlay and of a routed network, in
a ring. Users churn on the same networks beside them. A lost packet has an explanation only where the pair's own way
was a bad wire at that time: both ends on one host have none. Never retries a ping.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import processes
from lab.lab import until
from lab.processes import Process
from tests.soak.ledger import Endpoint, Ledger, Network
from tests.soak.site import Soaked

STAGE = {"stage-bridge": "bridge", "stage-overlay": "overlay", "stage-routed": "routed"}
# Around a bad wire: the cable is moved to it and back, and what was under way comes late.
GRACE_S = 1.0
REACHED_WITHIN_S = 30.0
END_S = 15.0


@dataclass(frozen=True, slots=True)
class Pair:
    """`hosts`: whose underlay is between them; none where both are on one host."""

    name: str
    source: str
    address: str
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Window:
    """A time (monotonic) in which the wire of a host was bad on purpose."""

    host: str
    began: float
    ended: float

    def explains(self, hosts: frozenset[str], moment: float) -> bool:
        return self.host in hosts and self.began - GRACE_S <= moment <= self.ended + GRACE_S


@dataclass(slots=True)
class Pings:
    """Of one pair. `unexplained`: (when, why)."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    explained: int = 0
    slowest_ms: float = 0.0
    slowest_fine_ms: float = 0.0
    unexplained: list[tuple[float, str]] = field(default_factory=list)


async def set_up(site: Soaked, ledger: Ledger) -> list[Pair]:
    """The stage's networks, the bystanders on them, all reaching each other."""
    lab, pairs = site.lab, []
    for name, driver in STAGE.items():
        made = await lab.client.create_network({"name": name, "driver": driver})
        cidrs = tuple(subnet["cidr"] for subnet in made["subnets"])
        ledger.networks[made["id"]] = Network(made["id"], name, driver, cidrs, is_stage=True)
        if driver == "bridge":
            for host in site.hosts:
                ends = [await _bystander(site, ledger, made["id"], f"{driver}-{host}-{side}", host) for side in "ab"]
                pairs.append(_pair(*ends))
            continue
        ring = [await _bystander(site, ledger, made["id"], f"{driver}-{host}", host) for host in site.hosts]
        for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            pairs.append(_pair(one, other))
    for pair in pairs:

        async def is_reached(pair: Pair = pair) -> bool:
            return (await lab.ping(pair.source, pair.address, timeout_s=0.5)).ok

        await until(is_reached, f"{pair.name}: the bystanders reach each other", seconds=REACHED_WITHIN_S)
    return pairs


async def _bystander(site: Soaked, ledger: Ledger, network: str, name: str, host: str) -> Endpoint:
    await site.lab.add_workload(name, host)
    told = (await site.lab.attach(network, name))["endpoint"]
    made = Endpoint(told["id"], name, ledger.networks[network], host, name, tuple(told["addresses"]), busy=True)
    ledger.endpoints[made.id] = made
    return made


def _pair(one: Endpoint, other: Endpoint) -> Pair:
    hosts = frozenset({one.host, other.host}) if one.host != other.host else frozenset()
    return Pair(f"{one.name} -> {other.name}", one.workload, other.addresses[0], hosts)


class Bystanders:
    """Their pings, by a process of its own."""

    def __init__(self, site: Soaked, pairs: Sequence[Pair]) -> None:
        self._site = site
        self._pairs = {pair.name: pair for pair in pairs}
        self._process: Process | None = None

    async def start(self) -> None:
        lab = self._site.lab
        wishes = lab.directory / "pairs.json"
        told = [
            {"name": p.name, "address": p.address, "netns": str(lab.workloads[p.source].netns)}
            for p in self._pairs.values()
        ]
        wishes.write_text(json.dumps(told))
        command = [sys.executable, "-m", "tests.soak.pinger", str(wishes)]
        self._process = await processes.start("pinger", command, logs=lab.directory)

    async def stop(self) -> None:
        """Nothing more is sent, and all that was is answered or lost."""
        if self._process is not None:
            self._process.require_running()
            self._process.signal(signal.SIGTERM)
            await self._process.stop(END_S)

    def judged(self, windows: Iterable[Window]) -> dict[str, Pings]:
        assert self._process is not None
        return judged(self._process.log, self._pairs, list(windows))


def judged(log: Path, pairs: dict[str, Pair], windows: Sequence[Window]) -> dict[str, Pings]:
    """Pure but for the reading."""
    found = {name: Pings() for name in pairs}
    for text in log.read_text().splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue  # a warning of the interpreter
        pings, hosts = found[line["pair"]], pairs[line["pair"]].hosts
        pings.sent, pings.answered = line["sent"], line["answered"]
        pings.slowest_ms = max(pings.slowest_ms, line["slowest_ms"])
        if not any(window.explains(hosts, line["at"]) for window in windows):
            pings.slowest_fine_ms = max(pings.slowest_fine_ms, line["slowest_ms"])
        for moment, why in line["lost"]:
            pings.lost += 1
            if any(window.explains(hosts, moment) for window in windows):
                pings.explained += 1
            else:
                pings.unexplained.append((moment, why))
    return found
