"""Puts the test process into a world of its own before the first kernel test runs; fails them all where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.namespaces import LOOPBACK_INDEX
from tests.lab import world
from worker.kernel.messages import set_link
from worker.kernel.netlink import Netlink

HERE = Path(__file__).parent
_REFUSAL = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before any test ran: the process has one thread, which a user namespace asks for."""
    has_kernel_tests = any(HERE in item.path.parents for item in session.items)
    if not has_kernel_tests or session.config.option.collectonly or _REFUSAL in session.config.stash:
        return
    session.config.stash[_REFUSAL] = ""
    try:
        world.enter()
    except world.Refused as error:
        session.config.stash[_REFUSAL] = str(error)
        return
    rtnetlink = Netlink()
    rtnetlink.one(set_link(LOOPBACK_INDEX, up=True))
    rtnetlink.close()


@pytest.fixture(autouse=True)
def own_world(request: pytest.FixtureRequest) -> None:
    refusal = request.config.stash[_REFUSAL]
    if refusal:
        pytest.fail(refusal, pytrace=False)
