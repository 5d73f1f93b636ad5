"""What users of a soak asked for, what they were told, and so what must be there, may be there, and must not be there.

Acknowledged: it was done. Refused: it certainly was not, or is undone. Unknown: the answer was lost, so it may be
done at any later time, or never (a frozen controller does it when it wakes). Every ownership that is certain goes
into a history in the form that `tests.torture.intervals` judges. Never asks anybody anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any

from kvnet.errors import KvnetError

# After these nobody knows: the request may have been carried out, or be under way still.
UNCERTAIN = {"outcome-unknown", "controller-unreachable", "unexpected-answer", "error"}

UNSURE = "?"  # among the ports of an endpoint: an answer about them was lost


class Outcome(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """LIVE: acknowledged. DOUBTFUL: an answer was lost on the way in or out. GONE: its end was acknowledged."""

    LIVE = "live"
    DOUBTFUL = "doubtful"
    GONE = "gone"


def outcome_of(error: Exception) -> Outcome:
    if isinstance(error, KvnetError):
        is_certain = error.code not in UNCERTAIN
        return Outcome.REFUSED if is_certain else Outcome.UNKNOWN
    return Outcome.UNKNOWN  # ours ran out of patience


@dataclass(slots=True, eq=False)
class Network:
    """`labels`: values of the label `soak` that it may have; the last one acknowledged is the first."""

    id: str
    name: str
    driver: str
    cidrs: tuple[str, ...] = ()
    is_stage: bool = False
    standing: Standing = Standing.LIVE
    busy: bool = False
    labels: list[str] = field(default_factory=lambda: [""])


@dataclass(slots=True, eq=False)
class Endpoint:
    """`workload`: its namespace's name, "" for one of the API alone. `labels`, `ports`: as of a network's labels.

    `held`: its host ports, as things; `generation` counts their changes.
    """

    id: str
    name: str
    network: Network
    host: str
    workload: str = ""
    addresses: tuple[str, ...] = ()
    standing: Standing = Standing.LIVE
    busy: bool = False
    labels: list[str] = field(default_factory=lambda: [""])
    ports: list[str] = field(default_factory=lambda: [""])
    held: list[str] = field(default_factory=list)
    generation: int = 0

    @property
    def publisher(self) -> str:
        """Who owns its ports in the history: somebody else after each change of them."""
        return f"{self.id}#{self.generation}"


@dataclass(slots=True)
class Ledger:
    """`may_appear`: ids whose creation may still take effect. `peers`: pairs of networks -> are they? None: unknown."""

    file: IO[str]
    clock: Callable[[], int]
    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    peers: dict[frozenset[str], bool | None] = field(default_factory=dict)
    may_appear: set[str] = field(default_factory=set)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    lines: list[dict[str, Any]] = field(default_factory=list)
    operations: int = 0

    def begin(self, kind: str, owner: str, **asked: Any) -> int:
        self.operations += 1
        self._write(type="invoke", f=kind, op=self.operations, owner=owner, value=asked)
        return self.operations

    def end(self, kind: str, op: int, outcome: Outcome, told: Any = None) -> None:
        self.counts.setdefault(kind, Counter())[outcome] += 1
        self._write(type=outcome, f=kind, op=op, value=told)

    def refused(self, kind: str, error: Exception) -> None:
        self.codes[f"{kind} {getattr(error, 'code', type(error).__name__)}"] += 1

    def acquired(self, op: int, owner: str, things: Sequence[str]) -> None:
        """It was told so: from now on it certainly has these."""
        self.lines.append(self._write(type="ok", f="acquire", op=op, owner=owner, value=list(things)))

    def releases(self, op: int, owner: str, things: Sequence[str]) -> None:
        """It is about to ask for the end: from now on it may not have them any more."""
        self.lines.append(self._write(type="invoke", f="release", op=op, owner=owner, value=list(things)))

    def idle_endpoints(self, standing: Standing = Standing.LIVE) -> list[Endpoint]:
        return [e for e in self.endpoints.values() if e.standing is standing and not e.busy]

    def idle_networks(self, standing: Standing = Standing.LIVE) -> list[Network]:
        return [n for n in self.networks.values() if n.standing is standing and not n.busy]

    def of_network(self, network: Network) -> list[Endpoint]:
        return [e for e in self.endpoints.values() if e.network is network and e.standing is not Standing.GONE]

    def _write(self, **line: Any) -> dict[str, Any]:
        line["time"] = self.clock()
        self.file.write(json.dumps(line, default=str) + "\n")
        return line


def addresses_of(endpoint: Endpoint) -> list[str]:
    """As things that one has to itself."""
    return [f"address {endpoint.network.id}/{address}" for address in endpoint.addresses]


def ports_of(endpoint: Endpoint, ports: Sequence[Any]) -> list[str]:
    """The same of host ports."""
    return [f"port {endpoint.host}/{port['protocol']}/{port['host_port']}" for port in ports]


def ports_text(ports: Sequence[Any]) -> str:
    """What an endpoint publishes, as a text that can be compared."""
    return " ".join(sorted(f"{p['host_port']}:{p['port']}/{p['protocol']}" for p in ports))
