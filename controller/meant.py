"""Which name was meant by one that is not there: the closest of those that are. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from kvnet.rules import shown

MOST_COMPARED = 5_000  # more take longer than an answer may
MOST_TOLD = 2


def meant(name: str, known: Collection[str], otherwise: str) -> str:
    """What to do about it: one that is close, if there is any, and `otherwise`."""
    if len(known) > MOST_COMPARED or len(name) > 2 * 64:
        return otherwise
    close = get_close_matches(name, known, MOST_TOLD, cutoff=0.7)
    return f"did you mean {' or '.join(map(shown, close))}? {otherwise}" if close else otherwise
