"""Where the log of a server goes: stderr, one line per event, in UTC; a service manager adds the rest."""

from __future__ import annotations

import logging
import time

# They tell of every start, end and request; we tell of what changed.
CHATTY = ("uvicorn", "httpx2", "httpcore2")
LEVELS = ("debug", "info", "warning", "error")


def to_stderr(level: str) -> None:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    if level != "debug":
        for chatty in CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.basicConfig(level=level.upper(), handlers=[handler])
