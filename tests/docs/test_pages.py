"""Every command of every page is typed, in a world like a reader's, and prints what the page shows."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

from tests.docker import programs
from tests.docs.pages import CHECKOUT, pages, read
from tests.docs.running import perform
from tests.docs.syntax import faults, unrun
from tests.lab import world

# What no test can do: a physical switch, somebody's desktop, a test run inside the test run. Raise it only for such.
UNRUN_AT_MOST = 20
PAGES = pages()


def _name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_what_a_page_names_is_there(path: Path) -> None:
    page = read(path)
    wrong = [f"{page.name}:{line}: {text}" for line, text in faults(page)]
    assert not wrong, "\n".join(["", *wrong])


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    blocks = [f"{_name(path)}:{line}: {why}" for path in PAGES for line, why in unrun(read(path))]
    assert len(blocks) <= UNRUN_AT_MOST, "\n".join(["", *blocks])


class PageNotAtOnce(UserWarning):
    """Told with the tests' warnings, so that a page that needs its second try again and again is found."""


@pytest.mark.kernel
@pytest.mark.filterwarnings("always::tests.docs.test_pages.PageNotAtOnce")
@pytest.mark.parametrize("path", [path for path in PAGES if read(path).runs()], ids=_name)
def test_a_page_is_true(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world.require(request.config)
    page = read(path)
    if any(needed.kind in ("docker", "compose") for needed, _ in page.scenes()) and not programs.is_real_root():
        pytest.skip("Docker's containers take the machine's root, for cgroups: sudo make test ARGS=tests/docs")
    differences = asyncio.run(perform(page, tmp_path / "1"))
    if differences:
        # A page is what a reader sees who types by hand; on a busy machine a command may come a moment too early. Once.
        warnings.warn(PageNotAtOnce(f"{page.name}, once more, after {differences[0]}"), stacklevel=1)
        differences = asyncio.run(perform(page, tmp_path / "2"))
    assert not differences, "\n".join(["", *map(str, differences), f"paste: python -m tests.docs {path} --update"])
