"""A name of a runtime's as one that an endpoint can have: runtimes allow longer ones, and other characters. Pure."""

from __future__ import annotations

import hashlib
import re

from kvnet.rules import NAME

LONGEST = 63
DIGEST = 8
UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")


def as_name(text: str) -> str:
    """The text itself where it is a name; else what can be kept of it, with a digest so that two never become one."""
    if NAME.match(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST]
    kept = UNFIT.sub("-", text).strip("_.-")[: LONGEST - DIGEST - 1].rstrip("_.-")
    return f"{kept}-{digest}" if kept else digest
