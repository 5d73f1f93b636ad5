"""`make compose-test`: the cluster of docker-compose.yml is built, walked through on each store, and taken down.

On the Docker that DOCKER_HOST names, or, as root, on one of our own in namespaces that nothing else is in; the
machine's own Docker is left alone unless it is named. What is needed from outside is fetched before they are entered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kvnet.errors import KvnetError, Unfit
from lab.enter import is_inside, settle, wrapped
from tests.compose.cluster import STORES, build, open_cluster
from tests.compose.engine import Engine, given_engine, own_engine
from tests.compose.images import IMAGE
from tests.compose.walk import Walk

INSTALL = Path(__file__).with_name("install")
FAILED = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make compose-test", description=__doc__)
    parser.add_argument("--store", default=",".join(STORES), help="some of them, divided by commas; default: all")
    stores = parser.parse_args().store.split(",")
    if unknown := set(stores) - set(STORES):
        parser.error(f"there is no store {', '.join(unknown)}")
    try:
        if os.environ.get("DOCKER_HOST"):
            asyncio.run(on_given(stores))
        elif is_inside():
            settle()
            asyncio.run(on_own(stores))
        else:
            return enter()
    except Unfit as error:
        print(f"Error: {error.detail}\nFix: {error.fix}", file=sys.stderr)
        return FAILED
    except (KvnetError, AssertionError, BaseExceptionGroup) as error:
        traceback.print_exception(error)
        return FAILED
    return 0


def enter() -> int:
    """Fetch what is needed, and do it all again in namespaces of our own."""
    if os.geteuid() != 0:
        raise Unfit(
            "a Docker of our own takes root", fix="sudo make compose-test, or name yours: DOCKER_HOST=unix://..."
        )
    subprocess.run([INSTALL], check=True)
    command, environment = wrapped([sys.executable, "-m", "tests.compose", *sys.argv[1:]])
    return subprocess.run(command, env=environment, check=False).returncode


async def on_own(stores: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="kvnet-compose-") as folder:
        async with own_engine(Path(folder)) as engine:
            await walk_all(engine, stores)


async def on_given(stores: Sequence[str]) -> None:
    async with given_engine() as engine:
        had = await engine.has(IMAGE)
        try:
            await walk_all(engine, stores)
        finally:
            if not had:
                await engine.forget(IMAGE)


async def walk_all(engine: Engine, stores: Sequence[str]) -> None:
    began = started = time.monotonic()
    await build(engine)
    print(f"built ({time.monotonic() - started:.1f} s)", flush=True)
    for store in stores:
        started = time.monotonic()
        async with open_cluster(engine, store) as cluster:
            print(f"{store}: up ({time.monotonic() - started:.1f} s)", flush=True)
            await Walk(cluster, partial(print, flush=True)).everything()
        print(f"{store}: down again, {time.monotonic() - started:.1f} s in all", flush=True)
    print(f"all is well on {', '.join(stores)} ({time.monotonic() - began:.1f} s)")


if __name__ == "__main__":
    sys.exit(main())
