"""What a demo found, as JSON for machines and as tables for people. Pure: takes facts, returns text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kvnet.wire import Endpoint, Network


@dataclass(frozen=True, slots=True)
class PingResult:
    """One echo request, and whether it was answered. `rtt_ms` is None where it was not."""

    source: str
    to: str
    address: str
    ok: bool
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's findings. `ok`: every ping and every greeting was answered."""

    hosts: int
    store: str
    network: Network
    endpoints: Sequence[Endpoint]
    pings: Sequence[PingResult]
    greetings: Sequence[str]
    attach_ms: Sequence[float]
    seconds_to_first_ping: float
    seconds: float
    urls: Mapping[str, str] = field(default_factory=dict)
    expected_greetings: int = 0

    @property
    def ok(self) -> bool:
        answered = all(p.ok for p in self.pings) and len(self.greetings) == self.expected_greetings
        return bool(self.pings) and answered

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "hosts": self.hosts,
            "store": self.store,
            "network": self.network,
            "endpoints": list(self.endpoints),
            "pings": [_ping_json(p) for p in self.pings],
            "greetings": list(self.greetings),
            "attach_ms": list(self.attach_ms),
            "seconds_to_first_ping": self.seconds_to_first_ping,
            "seconds": self.seconds,
            "urls": dict(self.urls),
        }

    def as_text(self) -> str:
        answered = sum(p.ok for p in self.pings)
        network = self.network
        subnets = " and ".join(s["cidr"] for s in network["subnets"])
        closing = f"{answered} of {len(self.pings)} pings answered at the first packet"
        parts = [
            f"Network {network['name']} ({network['driver']}, VNI {network['vni']}): {subnets}",
            table(
                ("WORKLOAD", "HOST", "IPV4", "IPV6", "MAC", "ATTACHED IN"),
                [
                    (e["name"], e["host"], e["address"] or "-", e["address6"] or "-", e["mac"], f"{took:.1f} ms")
                    for e, took in zip(self.endpoints, self.attach_ms, strict=True)
                ],
            ),
            table(
                ("FROM", "TO", "ADDRESS", "FIRST PACKET"),
                [(p.source, p.to, p.address, f"{p.rtt_ms} ms" if p.ok else "NO ANSWER") for p in self.pings],
            ),
            "\n".join(self.greetings),
            f"{closing}, the first one {self.seconds_to_first_ping:.2f} s after the start.",
        ]
        return "\n\n".join(part for part in parts if part)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two blanks apart, no boxes."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows))
    return "\n".join(lines)


def _ping_json(result: PingResult) -> dict[str, Any]:
    plain = asdict(result)
    return {"from": plain.pop("source"), **plain}
