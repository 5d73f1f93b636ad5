"""Every figure of the data plane in one run: planning, throughput, published ports, a hundred hosts, a mass delete."""

from __future__ import annotations

from collections.abc import Iterator

from bench import deleting, hundred, planning, publishing, throughput
from bench.figures import Figure


def figures() -> Iterator[Figure]:
    for part in (planning, throughput, publishing, hundred, deleting):
        yield from part.figures()


if __name__ == "__main__":
    from bench.run import main

    raise SystemExit(main(["datapath"]))
