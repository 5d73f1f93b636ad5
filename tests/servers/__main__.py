"""Starts a store by hand, says its URL, and ends it on Ctrl-C: `python -m tests.servers etcd3.5 --members 3`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from tests.servers.binaries import KINDS, NotInstalled
from tests.servers.cluster import Cluster
from tests.servers.family import ServerFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--members", type=int, default=1, choices=(1, 3))
    parser.add_argument("--root", default="kvnet", help="of the printed store URL")
    parser.add_argument("--tls", action="store_true", help="clients must speak TLS")
    parser.add_argument("--client-certificates", action="store_true", help="and show a certificate")
    parser.add_argument("--auth", action="store_true", help="and log in; the URL names one who may write below root")
    parser.add_argument("--directory", type=Path, help="for the data (default: a folder that goes away again)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="kvnet-servers-") as temporary:
            asyncio.run(_serve(given, (given.directory or Path(temporary)).resolve()))
    except (NotInstalled, ServerFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _serve(given: argparse.Namespace, directory: Path) -> None:
    told_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    cluster = Cluster(
        given.kind,
        directory,
        members=given.members,
        tls=given.tls,
        client_certificates=given.client_certificates,
        auth=given.auth,
    )
    async with cluster:
        who = await cluster.grant(f"/{given.root}/") if given.auth else None
        print(cluster.url(given.root, who), flush=True)
        print(f"data and logs: {directory}; pids: {[m.pid for m in cluster.members]}", file=sys.stderr)
        await told_to_end.wait()


if __name__ == "__main__":
    sys.exit(main())
