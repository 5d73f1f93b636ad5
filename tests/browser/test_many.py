"""A thousand endpoints in a network, and a thousand networks, stay usable: measured, not hoped for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from playwright.async_api import Browser

from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Host
from tests.browser.site import Site, milliseconds, shows, site_of

pytestmark = pytest.mark.anyio

MANY = 1000
# On two processors that other tests share; what a person feels as at once is 100 ms, as not broken 1 s.
FEELS_AT_ONCE_MS = 400
FIRST_PAINT_MS = 1000
SOON_S = 1.0


@pytest.fixture(scope="module")
async def crowded(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser) as site:
        await site.network("crowd", subnets=[{"cidr": "10.99.0.0/20"}])
        await site.endpoints("crowd", MANY)
        for i in range(MANY - 1):
            await site.network(f"net-{i}", subnets=[{"cidr": f"10.{100 + i // 250}.{i % 250}.0/28"}])
        yield site


async def test_the_first_paint_takes_less_than_a_second(crowded: Site) -> None:
    async with crowded.page("#/") as page:
        await page.reload()
        await page.locator("#problems *").first.wait_for()
        paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        known = await page.evaluate("performance.now()")
        print(f"first paint {paint:.0f} ms, problems shown {known:.0f} ms")

        assert paint < FIRST_PAINT_MS


async def test_a_network_of_a_thousand_endpoints_is_shown_grouped_and_paged(crowded: Site) -> None:
    async with crowded.page("#/networks/crowd") as page:
        table = page.locator("section[aria-label=Endpoints]")
        await shows(page, "section[aria-label=Endpoints] .count", "1,000 endpoints")
        assert await table.locator("tbody tr").count() == 100
        await shows(page, "main", "1,000 endpoints are grouped by host")
        await page.get_by_role("button", name="Show as table").first.click()
        await shows(page, "section[aria-label='Hosts and endpoints'] .count", "4 nodes")

        took = {
            "sort": await milliseconds(
                page, "document.querySelector('section[aria-label=Endpoints] th:nth-child(3) .sort').click();"
            ),
            "next": await milliseconds(
                page, "document.querySelector('section[aria-label=Endpoints] [data-focus=next]').click();"
            ),
        }
        await page.locator("section[aria-label=Endpoints] input").fill("web-77")
        await shows(page, "section[aria-label=Endpoints] .count", "11 of 1,000 endpoints")
        took["filter"] = await milliseconds(page, "")
        print(took)
        assert max(took.values()) < FEELS_AT_ONCE_MS


async def test_a_change_among_a_thousand_is_seen_at_once_and_keeps_the_page_free(crowded: Site) -> None:
    async with crowded.page("#/networks/crowd?filter=fresh") as page:
        await shows(page, "section[aria-label=Endpoints] .nothing", "Nothing fits")
        await page.evaluate(
            """() => {
                window.longest = 0;
                let last = performance.now();
                const look = () => {
                    const now = performance.now();
                    window.longest = Math.max(window.longest, now - last);
                    last = now;
                    requestAnimationFrame(look);
                };
                requestAnimationFrame(look);
            }"""
        )
        before = asyncio.get_running_loop().time()
        made = await crowded.api.endpoint("crowd", name="fresh-one")
        took = (
            await shows(page, "section[aria-label=Endpoints] td, section[aria-label=Endpoints] th", "fresh-one")
            - before
        )
        longest = await page.evaluate("window.longest")
        print(f"seen after {took * 1000:.0f} ms; the longest frame {longest:.0f} ms")
        await crowded.api.delete(f"/v1/networks/crowd/endpoints/{made['id']}")

        assert took < SOON_S
        assert longest < FEELS_AT_ONCE_MS


async def test_a_flood_of_changes_costs_few_requests(crowded: Site) -> None:
    async with crowded.page("#/networks") as page:
        asked: list[str] = []
        await shows(page, ".count", "1,000 networks")
        page.on("request", lambda request: asked.append(request.url))
        for i in range(5):
            items = [{"host": "h1", "name": f"flood-{i}-{j}"} for j in range(10)]
            for k in range(20):
                await crowded.api.post(f"/v1/networks/net-{k}/endpoints", {"items": items[:2]})
        await page.locator("tbody tr").filter(has_text="net-19").filter(has_text="10/13").first.wait_for()

        assert len([url for url in asked if "/v1/" in url]) < 120, json.dumps(asked[:20])


async def test_a_thousand_networks_are_sorted_and_filtered_at_once(crowded: Site) -> None:
    async with crowded.page("#/networks") as page:
        await shows(page, ".count", "1,000 networks")
        took = await milliseconds(page, "document.querySelector('th:nth-child(4) .sort').click();")
        took = max(took, await milliseconds(page, "document.querySelector('th:nth-child(4) .sort').click();"))
        first = await page.locator("tbody tr").first.inner_text()
        await page.get_by_label("Filter: Networks").fill("net-99")
        await shows(page, ".count", "10 of 1,000 networks")
        print(f"sorting took {took:.0f} ms")

        assert "net-" in first or "crowd" in first
        assert took < FEELS_AT_ONCE_MS


async def test_a_thousand_hosts_are_a_grid_and_a_table_that_stay_free(crowded: Site) -> None:
    names = [f"node-{i}" for i in range(MANY - 3)]
    for number, name in enumerate(names):
        host = Host(name, ip_address(0xC6120000 + number), 1500)
        await crowded.store.commit([], [Put(keys.host(name), codec.encode(host))])
    async with crowded.page("#/hosts") as page:
        await shows(page, ".count", "1,000 hosts")
        assert await page.locator(".hosts li").count() == MANY
        before = asyncio.get_running_loop().time()
        await crowded.lives("node-500")
        await shows(page, ".hosts li", "starting")
        took = asyncio.get_running_loop().time() - before
        sorting = await milliseconds(page, "document.querySelector('th:nth-child(5) .sort').click();")
        print(f"a host among a thousand is seen alive after {took * 1000:.0f} ms; sorting took {sorting:.0f} ms")

        assert took < SOON_S
        assert sorting < FEELS_AT_ONCE_MS
