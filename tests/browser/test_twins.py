"""Every graphic has a table that says the same."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.browser.site import Site, holds, shows

pytestmark = pytest.mark.anyio


async def twin(page: Page, title: str) -> list[list[str]]:
    """The rows of a graphic's table."""
    part = page.locator(f"section[aria-label='{title}']")
    await part.get_by_role("button", name="Show as table").click()
    await part.locator("tbody tr").first.wait_for()
    rows: list[list[str]] = await part.locator("tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    return rows


async def test_the_graphs_table_has_every_node_of_the_graph(site: Site) -> None:
    await site.network("other")
    await site.network("drawn")
    await site.endpoints("drawn", 7)
    await site.api.post("/v1/networks/drawn/peers/other")
    async with site.page("#/networks/drawn") as page:
        await page.locator(".graph canvas").first.wait_for()
        await page.locator(".graph").focus()
        told = set()
        for _ in range(12):
            await page.keyboard.press("ArrowRight")
            told.add((await page.locator(".graph + .told").inner_text()).replace(" - ", " "))
        rows = await twin(page, "Hosts and endpoints")

        assert {row[0] for row in rows} == told
        assert sorted(row[1] for row in rows) == ["endpoint"] * 7 + ["host"] * 3 + ["network", "peer"]
        assert "graph=table" in page.url


async def test_what_was_moved_stays_when_an_endpoint_comes(site: Site) -> None:
    await site.network("steady")
    await site.endpoints("steady", 3)
    async with site.page("#/networks/steady") as page:
        await page.locator(".graph canvas").first.wait_for()
        places = """() => { const cy = document.querySelector('.graph')._cyreg.cy;
            return Object.fromEntries(cy.nodes('[kind = "endpoint"]').map((n) => [n.id(), n.position()])); }"""
        before = await page.evaluate(places)
        await site.api.endpoint("steady", host="h0", name="newcomer")
        await shows(page, "section[aria-label=Endpoints] tr", "newcomer")
        await holds(page, f"Object.keys(({places})()).length === 4")
        after = await page.evaluate(places)

        order = sorted(before, key=lambda one: before[one]["x"])
        assert sorted(before, key=lambda one: after[one]["x"]) == order, "nobody changed places"


async def test_the_address_maps_table_has_every_address_that_is_not_free(site: Site) -> None:
    made = await site.network("mapped", subnets=[{"cidr": "10.81.0.0/26", "reserved": {"printer": "10.81.0.9"}}])
    await site.endpoints("mapped", 5)
    async with site.page("#/networks/mapped") as page:
        canvas = page.locator("canvas.addresses")
        await canvas.wait_for()
        await canvas.focus()
        await page.keyboard.press("Home")
        told = {}
        for _ in range(64):
            address, _, who = (await page.locator("canvas + .told").inner_text()).partition(": ")
            told[address] = who
            await page.keyboard.press("ArrowRight")
        rows = await twin(page, "Addresses")

        assert len(told) == 64
        named = {address: who for address, who in told.items() if who not in ("nobody has it", "not usable")}
        assert {row[0]: row[1] for row in rows} == {
            address: who if who == "gateway" else "reservation" if who.startswith("reservation") else "endpoint"
            for address, who in named.items()
        }
        assert {row[2] for row in rows} >= {"printer", "web-0 on h0"}
        assert len(rows) == 7
        assert told["10.81.0.0"] == told["10.81.0.63"] == "not usable"
        assert made["subnets"][0]["gateway"] in named


async def test_a_click_on_the_map_leads_to_the_endpoint_and_on_a_free_address_to_the_search(site: Site) -> None:
    await site.network("clicked", subnets=[{"cidr": "10.82.0.0/24"}])
    await site.api.endpoint("clicked", name="target", address="10.82.0.5")
    async with site.page("#/networks/clicked") as page:
        canvas = page.locator("canvas.addresses")
        await shows(page, "section[aria-label=Endpoints] tr", "target")
        box = await canvas.bounding_box()
        assert box is not None
        side = box["width"] / 16
        await canvas.hover(position={"x": side * 5.4, "y": side * 0.4})
        assert await page.locator("canvas + .told").inner_text() == "10.82.0.5: target on h1"
        await canvas.click(position={"x": side * 5.4, "y": side * 0.4})
        await shows(page, "h1", "target")
        await page.go_back()
        await canvas.click(position={"x": side * 9.4, "y": side * 3.4})
        await shows(page, "h1", "Who has 10.82.0.57")
        await shows(page, ".holders", "free")


async def test_large_subnets_are_opened_part_by_part(site: Site) -> None:
    await site.network("large", subnets=[{"cidr": "10.83.0.0/16"}, {"cidr": "fd00:83::/64"}])
    await site.api.endpoint("large", name="low", address="10.83.0.5")
    await site.api.endpoint("large", name="high", address="10.83.200.7")
    async with site.page("#/networks/large") as page:
        await shows(page, ".graphic .muted", "10.83.0.0 to 10.83.255.255")
        await page.locator("canvas.addresses").focus()
        await page.keyboard.press("Home")
        assert await page.locator("canvas + .told").inner_text() == "10.83.0.0 and 15 more: 2 in use"
        await page.keyboard.press("Enter")
        await shows(page, ".graphic .muted", "10.83.0.0 to 10.83.0.15")
        await page.keyboard.press("Escape")
        await shows(page, ".graphic .muted", "10.83.0.0 to 10.83.255.255")

        await page.get_by_label("Subnet", exact=True).select_option("fd00:83::/64")
        await shows(page, ".graphic .muted", "fd00:83:: to fd00:83::fff")
        await page.get_by_role("button", name="Out").click()
        await shows(page, ".graphic .muted", "fd00:83:: to fd00:83::ffff:ffff:ffff:ffff")


async def test_the_grid_of_hosts_says_what_the_table_says(site: Site) -> None:
    await site.lives("h1")
    async with site.page("#/hosts") as page:
        await shows(page, "tbody tr", "h2")
        grid = await page.locator(".hosts li").evaluate_all(
            """(all) => all.map((one) =>
                [one.querySelector('strong').textContent, one.querySelector('.chip').lastChild.textContent])"""
        )
        table = await page.locator("tbody tr").evaluate_all(
            "(all) => all.map((one) => [one.children[0].textContent, one.children[1].firstChild.lastChild.textContent])"
        )
        assert sorted(grid) == sorted(table)
