"""The wall clocks of the soak's processes: one file for each, which `shifted/sitecustomize.py` reads in the process.

A time namespace does not shift CLOCK_REALTIME, and setting the machine's clock would hit everything on it. So a
process of ours is told another time where Python reads it: `time.time` and `time.time_ns` are all that the product
has for the wall clock (a test holds that). Store servers are other people's programs and keep the machine's clock.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

SHIFTED = Path(__file__).parent / "shifted"


class Clock:
    """Of one process, whatever its incarnation: a host keeps its clock when its worker is started anew.

    `was_set`: ever, since a process may end of a time that is right again when somebody looks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset_s = 0.0
        self.was_set = False
        path.write_bytes(struct.pack("<d", 0.0))

    def set(self, offset_s: float) -> None:
        """As far as this from the machine's own."""
        self.offset_s, self.was_set = offset_s, True
        with self.path.open("r+b") as file:  # in place: the process has the file mapped
            file.write(struct.pack("<d", offset_s))

    @property
    def environment(self) -> Mapping[str, str]:
        """What the process is started with."""
        inherited = os.environ.get("PYTHONPATH")
        places = [str(SHIFTED), *([inherited] if inherited else [])]
        return {"PYTHONPATH": os.pathsep.join(places), "KVNET_SOAK_CLOCK": str(self.path)}
