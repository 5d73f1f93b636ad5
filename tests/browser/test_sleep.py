"""A page that nobody looks at costs no stream, and knows everything when somebody does again; also behind a prefix."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from playwright.async_api import Browser, Page

from tests.api.under_test import eventually
from tests.browser.site import Site, shows, site_of

pytestmark = pytest.mark.anyio

ALONE = "delete window.SharedWorker"
AWAY_MS = 61_000


async def look(page: Page, *, is_hidden: bool) -> None:
    await page.evaluate(
        """(isHidden) => {
            Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        is_hidden,
    )


async def streams(site: Site) -> float:
    text = (await site.api.get("/metrics")).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("kvnet_sse_streams ")))


@pytest.mark.parametrize("is_kept", [True, False], ids=["the position is kept", "the position is too old"])
async def test_a_page_that_slept_knows_what_happened_meanwhile(browser: Browser, is_kept: bool) -> None:
    settings = {} if is_kept else {"journal_entries": 2, "upkeep_interval_s": 0.1}
    async with site_of(browser, **settings) as site:
        context = await browser.new_context()
        await context.add_init_script(ALONE)
        page = await context.new_page()
        await page.clock.install()
        await page.goto(f"{site.api.url}/#/networks")
        await site.network("before-sleep")
        await shows(page, "tbody tr", "before-sleep")
        await look(page, is_hidden=True)
        await page.clock.fast_forward(AWAY_MS)

        async def nobody_listens() -> bool:
            return await streams(site) == 0

        await eventually(nobody_listens)
        for i in range(6):
            await site.network(f"while-asleep-{i}")
        later = itertools.count()

        async def is_forgotten() -> bool:
            if is_kept or (await site.api.http.head("/v1/events?since=2")).status_code == 410:
                return True
            await site.network(
                f"later-{next(later)}"
            )  # the journal is trimmed from seal to seal: there has to be a next one
            return False

        await eventually(is_forgotten)
        await site.api.delete("/v1/networks/before-sleep")
        await look(page, is_hidden=False)
        for _ in range(5):
            await page.clock.run_for(1000)
            await asyncio.sleep(0.05)
        await shows(page, "tbody tr", "while-asleep-5")
        assert await page.locator("tbody tr").filter(has_text="before-sleep").count() == 0
        await page.evaluate("location.hash = '#/events'")
        await page.clock.run_for(1000)
        await shows(page, ".changes summary", "network.deleted")
        await context.close()


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    with suppress(ConnectionError):
        yield
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def behind_a_prefix(site: Site, prefix: str) -> AsyncIterator[str]:
    """What a reverse proxy does that gives kvnet a part of its paths."""
    port = int(site.api.url.rpartition(":")[2])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with closing(writer):
            line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            method, path, version = line.split(b" ")
            if not path.startswith(prefix.encode()):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            inner, outer = await asyncio.open_connection("127.0.0.1", port)
            async with closing(outer):
                inside = b"/" + path.removeprefix(prefix.encode())
                outer.write(b" ".join((method, inside, version)) + b"\r\nConnection: close\r\n" + rest)
                while data := await inner.read(65536):
                    writer.write(data)
                    await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{prefix}"
    finally:
        server.close()


async def test_it_works_below_a_path_of_another_server(site: Site) -> None:
    await site.network("prefixed")
    async with behind_a_prefix(site, "/tools/kvnet/") as url:
        context = await site.browser.new_context()
        page = await context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{url}#/networks")
        await shows(page, "tbody tr", "prefixed")
        await site.network("prefixed-live")
        await shows(page, "tbody tr", "prefixed-live")

        assert all(one.startswith(url) for one in asked)
        assert f"--controller {url.rstrip('/')} network ls" in await page.locator("[data-command=cli]").inner_text()
        await context.close()
