"""One Chromium and one controller for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browser.site import Site, site_of, started


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> None:
    """As long as the browser lives, its event loop is that of every test."""
    return


@pytest.fixture(scope="module")
async def browser(one_loop: None) -> AsyncIterator[Browser]:
    async with started() as browser:
        yield browser


@pytest.fixture(scope="module")
async def site(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser) as site:
        yield site
