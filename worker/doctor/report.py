"""What an examination says: checks, each with what was found, why it matters and what to do.

Pure. A check that could not be made says so (`unknown`), and one that does not apply says why (`skipped`): silence
would look like health.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"  # works now, or for some
    FAIL = "fail"  # does not work
    UNKNOWN = "unknown"  # could not be looked at
    SKIPPED = "skipped"  # does not apply here


AREAS = ("kernel", "settings", "underlay", "firewall", "clock", "store", "controller", "state", "docker", "worker")


@dataclass(frozen=True, slots=True)
class Check:
    """`id` is stable and begins with its area. `fix`: a command where there is one."""

    id: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""

    @property
    def area(self) -> str:
        return self.id.partition(".")[0]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "area": self.area, "status": self.status.value}


def ok(id_: str, found: str) -> Check:
    return Check(id_, Status.OK, found)


def warn(id_: str, found: str, why: str, fix: str = "") -> Check:
    return Check(id_, Status.WARN, found, why, fix)


def fail(id_: str, found: str, why: str, fix: str = "") -> Check:
    return Check(id_, Status.FAIL, found, why, fix)


def unknown(id_: str, found: str, fix: str = "") -> Check:
    return Check(id_, Status.UNKNOWN, found, "", fix)


def skipped(id_: str, reason: str) -> Check:
    return Check(id_, Status.SKIPPED, reason)


def report(host: str, version: str, checks: Iterable[Check]) -> dict[str, Any]:
    """In the order of areas."""
    made = sorted(checks, key=lambda check: AREAS.index(check.area))
    return {
        "host": host,
        "version": version,
        "checks": [check.as_json() for check in made],
        "counts": {status.value: sum(check.status is status for check in made) for status in Status},
    }
