"""Keeps dnspython from loading what its optional parts would need: a worker has no use for them, and 2.4 MB less with.

It looks its options up by `importlib.metadata`, which brings the parsers of mail and of zip archives along, and takes
the tables of IDNA where these are installed. Names of workloads are bytes here. So the one module that looks is told
in its place that nothing optional is there. Does nothing where dnspython is in use already.
"""

from __future__ import annotations

import sys
from types import ModuleType

FEATURES = "dns._features"


def without_options() -> None:
    """Before the first import of dnspython's modules."""
    import dns

    if FEATURES in sys.modules:
        return
    stand_in = ModuleType(FEATURES)
    vars(stand_in)["have"] = lambda _feature: False
    sys.modules[FEATURES] = stand_in
    vars(dns)["_features"] = stand_in
