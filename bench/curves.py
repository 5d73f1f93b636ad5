"""How costs grow: a host's with what it carries and with what it does not, a controller's with all there is.

Each curve is a handful of sizes, and its exponent by least squares on two logarithmic axes: 1 is linear. Processor time
and memory wherever that is what is asked, so that others on the machine do not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import curves_controller, curves_worker
from bench.figures import Figure


def figures(*, quick: bool = False) -> Iterator[Figure]:
    yield from curves_worker.figures(quick=quick)
    yield from curves_controller.figures(quick=quick)
