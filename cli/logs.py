"""Where the log of a server goes: stderr, one line per event, in UTC; a service manager adds the rest."""

from __future__ import annotations

import logging
import time

LEVELS = ("debug", "info", "warning", "error")


def to_stderr(level: str) -> None:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it tells its own start and end; we tell ours
    logging.basicConfig(level=level.upper(), handlers=[handler])
