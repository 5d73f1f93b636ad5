"""Runs pages by hand and, if asked, pastes what was printed: `python -m tests.docs docs/names.md --update`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from kvnet.errors import KvnetError
from tests.docs.pages import BadPage, pages, read
from tests.docs.running import perform, rewritten
from tests.docs.syntax import faults
from tests.lab import world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="default: all")
    parser.add_argument("--update", action="store_true", help="put what was printed into the pages")
    parser.add_argument("--check", action="store_true", help="only what needs no world: links, options, paths, syntax")
    given = parser.parse_args()
    chosen = [path.resolve() for path in given.pages] or pages()
    if not given.check:
        world.enter()
        _loopback()
    failed = [path for path in chosen if not _page(path, is_update=given.update, is_check=given.check)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} pages are as they should be")
    return 1 if failed else 0


def _loopback() -> None:
    os.system("ip link set lo up")  # noqa: S605


def _page(path: Path, *, is_update: bool, is_check: bool) -> bool:
    start = time.monotonic()
    try:
        page = read(path)
        wrong = [f"{page.name}:{line}: {text}" for line, text in faults(page)]
        if not is_check:
            with tempfile.TemporaryDirectory(prefix="kvd-") as folder:
                differences = asyncio.run(perform(page, Path(folder)))
            wrong += map(str, differences)
            if is_update and differences:
                path.write_text(rewritten(page, differences))
    except (BadPage, KvnetError) as error:
        wrong = [f"{path}: {error}"]
    for text in wrong:
        print(text)
    print(f"{path.name}: {len(wrong)} wrong, {time.monotonic() - start:.1f} s", flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
