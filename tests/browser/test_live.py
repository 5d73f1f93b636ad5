"""What changes is seen at once, without a reload and without being asked for."""

from __future__ import annotations

import asyncio

import pytest

from backends.store import Put
from kvnet import keys
from tests.browser.site import Site, shows

pytestmark = pytest.mark.anyio

SOON_S = 1.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_network_made_over_the_api_is_seen_within_a_second(site: Site) -> None:
    async with site.page("#/networks") as page:
        before = now()
        await site.network("made-live")
        seen = await shows(page, "tbody tr", "made-live")

        assert seen - before < SOON_S


async def test_endpoints_come_change_and_go_while_their_network_is_shown(site: Site) -> None:
    await site.network("moving")
    async with site.page("#/networks/moving") as page:
        await shows(page, ".nothing", "There are no endpoints")
        table = page.locator("section[aria-label=Endpoints]")
        before = now()
        made = await site.api.endpoint("moving", name="first")
        assert await shows(page, "section[aria-label=Endpoints] tr", "first") - before < SOON_S

        before = now()
        await site.api.http.patch(f"/v1/networks/moving/endpoints/{made['id']}", json={"name": "renamed"})
        assert await shows(page, "section[aria-label=Endpoints] tr", "renamed") - before < SOON_S

        before = now()
        await site.api.delete(f"/v1/networks/moving/endpoints/{made['id']}")
        await table.locator(".nothing").wait_for()
        assert now() - before < SOON_S
        await shows(page, ".changes .kind", "endpoint.deleted")


async def test_a_host_that_comes_to_life_leaves_the_problems(site: Site) -> None:
    async with site.page("#/") as page:
        problem = page.locator("#problems li").filter(has_text="host h2")
        await problem.wait_for()
        before = now()
        await site.lives("h2")
        await site.reports("h2", [])
        await problem.wait_for(state="detached")

        assert now() - before < SOON_S


async def test_what_hosts_report_is_the_first_thing_on_the_overview(site: Site) -> None:
    network = await site.network("troubled")
    await site.api.endpoint("troubled", host="h1")
    await site.lives("h1")
    async with site.page("#/") as page:
        await site.reports("h1", [network["id"]], ("forward-blocked", "table inet foreign drops what is forwarded"))
        await shows(page, "#problems li", "table inet foreign drops")
        told = page.locator("#problems li").filter(has_text="forward-blocked").first

        assert await told.locator("time").count() == 1, "since when"
        assert "doctor h1" in (await told.locator("[data-command=way]").inner_text()), "the way out"
        first = await page.locator("main section h2").first.inner_text()
        assert first == "Problems"


async def test_the_bars_tell_how_full_a_network_is_while_it_fills(site: Site) -> None:
    await site.network("filling", subnets=[{"cidr": "10.77.0.0/28"}])
    async with site.page("#/networks?filter=filling") as page:
        await shows(page, "tbody .figures", "0/13")
        await site.endpoints("filling", 13)
        await shows(page, "tbody .figures", "13/13 (100%)")
        await page.goto(f"{site.api.url}/#/")
        await shows(page, "#problems li", "10.77.0.0/28 is 100% full")


async def test_events_are_held_still_and_filtered(site: Site) -> None:
    async with site.page("#/events") as page:
        await site.network("one-event")
        await shows(page, ".changes summary", "one-event")
        await page.get_by_role("button", name="Pause").click()
        await site.network("another-event")
        await shows(page, ".count", "1 more while paused")
        assert await page.locator(".changes summary").filter(has_text="another-event").count() == 0
        await page.get_by_role("button", name="Go on").click()
        await shows(page, ".changes summary", "another-event")

        await page.get_by_label("Filter events").fill("another")
        await page.locator(".changes summary").filter(has_text="one-event").wait_for(state="detached")
        assert "filter=another" in page.url
        await page.locator(".changes summary").first.click()
        await shows(page, ".diff th", "vni")


async def test_an_address_is_found_and_who_has_it_stays_true(site: Site) -> None:
    await site.network("sought", subnets=[{"cidr": "10.78.0.0/24"}])
    made = await site.api.endpoint("sought", name="the-holder", address="10.78.0.7")
    async with site.page() as page:
        await page.keyboard.press("/")
        await page.keyboard.type("10.78.0.7")
        await page.keyboard.press("Enter")
        await shows(page, ".holders li", "the-holder")
        assert await page.title() == "Who has 10.78.0.7 - kvnet"
        await site.api.delete(f"/v1/networks/sought/endpoints/{made['id']}")
        await shows(page, ".holders li", "cooling down")

        await page.locator("#query").fill("10.78.0.0/16")
        await page.keyboard.press("Enter")
        await shows(page, "td", "sought")
        await page.locator("#query").fill("no-such-thing")
        await page.keyboard.press("Enter")
        await shows(page, "main p", "Nothing has that name")


async def test_a_value_that_nobody_can_read_is_a_problem_of_the_cluster(site: Site) -> None:
    await site.store.commit([], [Put(keys.host("h9"), b"\xff no host")])
    async with site.page("#/") as page:
        told = page.locator("#problems li.bad").filter(has_text="values-unreadable")
        await told.wait_for()

        assert "hosts/h9" in await told.inner_text()
        assert (await told.locator("[data-command=way]").inner_text()).endswith(" check")
