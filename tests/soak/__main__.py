"""`python -m tests.soak --store etcd --minutes 20`: soak one store, say what came of it, exit 1 on any violation.

Enters namespaces of its own first, so nothing on the machine notices; needs root, or a kernel that allows user
namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.enter import is_inside, settle, wrapped
from tests.soak import report
from tests.soak.plan import only
from tests.soak.run import soak
from tests.soak.settings import STORES, Options


def main() -> int:
    given = _arguments()
    only(given.faults)
    if not is_inside():
        command, environment = wrapped([sys.executable, "-m", "tests.soak", *sys.argv[1:], "--seed", str(given.seed)])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one inside ends in order, and says how it ended
        return subprocess.run(command, env=environment, check=False).returncode
    settle()
    options = Options(
        given.store,
        given.minutes * 60,
        given.seed,
        given.hosts,
        given.controllers,
        given.users,
        kinds=tuple(given.faults),
    )
    return _soak(options, given.keep, given.json)


def _soak(options: Options, keep: Path | None, as_json: Path | None) -> int:
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
        sys.stdout.flush()

    # Short: below it are sockets, whose paths have a limit.
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir=keep))
    say(f"{options.replay}; logs and history: {directory}")
    told = asyncio.run(soak(options, directory, say)).as_json()
    for line in report.lines(told):
        sys.stdout.write(line + "\n")
    (as_json or directory / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    if told["ok"] and keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        sys.stdout.write(f"logs, history and report: {directory}\n")
    return 0 if told["ok"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--store", default="sqlite", choices=STORES)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--controllers", type=int, default=2)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--faults", type=lambda text: text.split(","), default=[], help="only these kinds")
    parser.add_argument("--keep", type=Path, help="a folder: logs, history and report stay there")
    parser.add_argument("--json", type=Path, help="where the report goes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
