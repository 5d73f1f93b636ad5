"""Going to and fro, several tabs, and what is seen while the controller is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser

from controller.server import Listening, ServerSettings, serve
from controller.settings import Settings
from tests.api.under_test import eventually
from tests.browser.site import Site, holds, shows

pytestmark = pytest.mark.anyio

UNREACHABLE = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "503")
BACK_S = 8.0


async def test_back_goes_to_the_view_before_and_each_has_a_title_and_an_address(site: Site) -> None:
    await site.network("journey")
    made = await site.api.endpoint("journey", name="stop")
    async with site.page("#/") as page:
        await page.locator("nav").get_by_text("Networks").click()
        await page.get_by_role("link", name="journey", exact=True).click()
        await page.locator("section[aria-label=Endpoints]").get_by_role("link", name="stop").click()
        await holds(page, "document.title === 'stop - journey - kvnet'")
        assert page.url.endswith(f"#/networks/journey/endpoints/{made['id']}")

        await page.go_back()
        await holds(page, "document.title === 'journey - kvnet'")
        await page.go_back()
        await holds(page, "document.title === 'Networks - kvnet'")
        await page.go_forward()
        await holds(page, "document.title === 'journey - kvnet'")
        await page.reload()
        await shows(page, "section[aria-label=Endpoints] tr", "stop")


async def test_what_is_filtered_and_sorted_is_part_of_the_address(site: Site) -> None:
    await site.network("kept-a")
    await site.network("kept-b")
    async with site.page("#/networks?filter=kept&sort=-name") as page:
        await page.locator("tbody tr").nth(1).wait_for()
        assert [await row.inner_text() for row in await page.locator("tbody th").all()] == ["kept-b", "kept-a"]
        await page.get_by_role("button", name="Name").click()
        assert "sort=name" in page.url
        await page.reload()
        await page.locator("tbody tr").nth(1).wait_for()
        assert [await row.inner_text() for row in await page.locator("tbody th").all()] == ["kept-a", "kept-b"]


async def test_what_is_not_there_is_said(site: Site) -> None:
    async with site.page("#/networks/never-was", excused=["404"]) as page:
        await shows(page, "h1", "is not there")
        await page.evaluate("location.hash = '#/hosts/never-was'")
        await shows(page, "h1", "is not there")
        await page.evaluate("location.hash = '#/nothing/at/all'")
        await shows(page, "h1", "There is no such view")


async def test_eight_tabs_share_one_stream(site: Site) -> None:
    """A browser opens six connections to a host: with a stream each, the seventh tab would never load."""
    await site.network("shared")

    async def streams() -> float:
        text = (await site.api.get("/metrics")).text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("kvnet_sse_streams ")))

    async with site.page("#/networks") as page:
        pages = [page] + [(await site.another(page.context, "#/networks"))[0] for _ in range(7)]
        assert await streams() == 1
        await site.network("told-to-all")
        for one in pages:
            await shows(one, "tbody tr", "told-to-all")

    async def none_is_left() -> bool:
        return await streams() == 0

    await eventually(none_is_left)


async def test_without_a_shared_worker_a_page_has_a_stream_of_its_own(site: Site) -> None:
    context = await site.browser.new_context()
    await context.add_init_script("delete window.SharedWorker")
    page, seen = await site.another(context, "#/networks")
    await site.network("on-its-own")
    await shows(page, "tbody tr", "on-its-own")
    await context.close()
    seen.require_clean()


@asynccontextmanager
async def controller(store: str, port: int) -> AsyncIterator[None]:
    ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = ServerSettings(store, f"127.0.0.1:{port}", None, Settings(cool_down_s=1.0))
    server = asyncio.create_task(serve(settings, ready=ready.set_result, stop=stop))
    try:
        async with asyncio.timeout(10):
            await ready
        yield
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("has_worker", [True, False])
async def test_a_restart_of_the_controller_is_told_and_survived(
    browser: Browser, tmp_path: Path, has_worker: bool
) -> None:
    import httpx2

    store, port = f"sqlite:///{tmp_path}/kvnet.db", free_port()
    url = f"http://127.0.0.1:{port}"
    context = await browser.new_context()
    if not has_worker:
        await context.add_init_script("delete window.SharedWorker")
    page = await context.new_page()
    async with controller(store, port), httpx2.AsyncClient(base_url=url) as http:
        await http.post("/v1/networks", json={"name": "before"})
        await page.goto(f"{url}/#/networks")
        await shows(page, "tbody tr", "before")

    await shows(page, "#banner", "The controller does not answer")
    await shows(page, "#banner", "What is shown is from before")
    assert await page.evaluate("document.body.classList.contains('stale')")
    assert await page.locator("tbody tr").filter(has_text="before").count() == 1, "what was known is still there"

    async with controller(store, port), httpx2.AsyncClient(base_url=url) as http:
        await http.post("/v1/networks", json={"name": "after"})
        async with asyncio.timeout(BACK_S):
            await shows(page, "tbody tr", "after")
            await page.locator("#banner").wait_for(state="hidden")
        assert not await page.evaluate("document.body.classList.contains('stale')")
        await http.post("/v1/networks", json={"name": "later"})
        await shows(page, "tbody tr", "later")
        await context.close()
