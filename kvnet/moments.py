"""How moments are written wherever people or programs read them: RFC 3339, in UTC, with a Z. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(at: float) -> str:
    """Seconds since the epoch, as a text of whole seconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
