"""How moments are written wherever people or programs read them: RFC 3339, in UTC, with a Z. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

FIRST, LAST = 0.0, 253_402_300_799.0  # the end of the year 9999, as far as RFC 3339 goes


def moment(at: float) -> str:
    """Seconds since the epoch, as a text of whole seconds."""
    return calendar(at).isoformat(timespec="seconds").replace("+00:00", "Z")


def calendar(at: float) -> datetime:
    """Of a moment that no calendar has, because somebody else wrote it into the store, the nearest that it has."""
    return datetime.fromtimestamp(min(max(at, FIRST), LAST), UTC)
