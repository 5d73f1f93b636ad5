"""With the keyboard alone, on a phone, in the dark, on paper, and with a screen reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.site import Site, holds, shows

pytestmark = pytest.mark.anyio

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@pytest.fixture(scope="module")
async def places(site: Site) -> list[str]:
    """Every view, with something in it."""
    network = await site.network(
        "reached", subnets=[{"cidr": "10.90.0.0/24"}], labels={"a-rather-long-label": "x" * 90}
    )
    await site.api.post("/v1/networks/reached/reservations", {"name": "printer"})
    await site.endpoints("reached", 4)
    made = await site.api.endpoint("reached", name="n" * 60, ports=[{"port": 80, "host_port": 8080}])
    await site.lives("h1")
    await site.reports("h1", [network["id"]], ("forward-blocked", "table inet foreign drops what is forwarded"))
    return [
        "#/",
        "#/networks",
        "#/networks/reached",
        "#/networks/reached?graph=table&addresses=table",
        f"#/networks/reached/endpoints/{made['id']}",
        "#/hosts",
        "#/hosts/h1",
        "#/events",
        "#/search?q=10.90.0.2",
        "#/search?q=10.90.0.0/16",
        "#/search?q=reached",
    ]


async def go(page: Page, place: str) -> None:
    await page.evaluate("place => (location.hash = place)", place)
    await page.locator("main .command").first.wait_for(state="attached")
    await holds(page, "document.querySelectorAll('main > *').length > 1")
    if place.startswith("#/networks/reached?") or place == "#/networks/reached":
        await shows(page, "section[aria-label=Convergence] tr", "h1")


async def audit(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.evaluate(
        "async (tags) => (await axe.run(document, {runOnly: tags})).violations"
        ".map(({id, nodes}) => ({id, nodes: nodes.map((node) => [node.html.slice(0, 200), node.failureSummary])}))",
        RULES,
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_that_keeps_people_out(site: Site, places: list[str], scheme: str) -> None:
    async with site.page("#/", color_scheme=scheme, bypass_csp=True) as page:
        await page.add_script_tag(content=AXE)
        found = {}
        for place in places:
            await go(page, place)
            found[place] = await audit(page)
        await page.keyboard.press("?")
        found["help"] = await audit(page)

        assert not any(found.values()), json.dumps({k: v for k, v in found.items() if v}, indent=1)


async def test_on_a_phone_no_page_scrolls_sideways(site: Site, places: list[str]) -> None:
    async with site.page("#/", **PHONE) as page:
        for place in places:
            await go(page, place)
            width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width == [390, 390], place
            small = await page.evaluate(
                """() => [...document.querySelectorAll('button, input, select, nav a')]
                    .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24)
                    .map((one) => one.outerHTML.slice(0, 100))"""
            )
            assert small == [], "what a finger has to hit"


async def test_everything_is_reached_with_the_tab_key_and_focus_is_seen(site: Site, places: list[str]) -> None:
    async with site.page("#/") as page:
        for place in (places[2], places[5], places[7]):
            await go(page, place)
            await page.evaluate(
                "document.activeElement.blur(); window.getSelection().removeAllRanges(); window.scrollTo(0, 0)"
            )
            wanted = await page.evaluate(
                """() => {
                    const all = [...document.querySelectorAll('a, button, input, select, summary, [tabindex="0"]')]
                        .filter((one) => one.checkVisibility() && !one.disabled);
                    all.forEach((one, i) => (one.dataset.i = i));
                    document.body.tabIndex = -1;
                    document.body.focus();
                    return all.length;
                }"""
            )
            reached, unseen = [], []
            for _ in range(wanted + 5):
                await page.keyboard.press("Tab")
                at, outline = await page.evaluate(
                    """() => {
                        const one = document.activeElement;
                        const isSeen = getComputedStyle(one).outlineStyle !== 'none';
                        return [one.dataset.i ?? null, isSeen ? '' : one.outerHTML.slice(0, 90)];
                    }"""
                )
                if at is not None and int(at) in reached:
                    break
                if at is not None:
                    reached.append(int(at))
                    unseen += [outline] if outline else []
            assert sorted(reached) == list(range(wanted)), place
            assert reached == sorted(reached), "in the order of the page"
            assert unseen == []
            await page.evaluate("document.body.removeAttribute('tabindex')")


async def test_the_keys_of_the_help_do_what_it_says(site: Site, places: list[str]) -> None:
    async with site.page("#/") as page:
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        assert page.url.endswith("#/"), "the view stays"

        for key, title in (("n", "Networks"), ("h", "Hosts"), ("e", "Events"), ("o", "Overview")):
            await page.keyboard.press("g")
            await page.keyboard.press(key)
            await holds(page, f"document.title === '{title} - kvnet'")
            assert await page.evaluate("document.activeElement.tagName") == "H1", "a screen reader begins at the title"

        await page.keyboard.press("?")
        assert await page.evaluate("document.getElementById('help').open")
        await page.keyboard.press("Escape")
        assert not await page.evaluate("document.getElementById('help').open")
        await page.keyboard.press("/")
        await page.keyboard.type("g n ?")
        assert await page.locator("#query").input_value() == "g n ?", "typing is no command"


async def test_an_update_does_not_take_the_focus_away(site: Site, places: list[str]) -> None:
    async with site.page("#/networks?filter=focus") as page:
        await site.network("focus-b", subnets=[{"cidr": "10.91.0.0/24"}])
        one = page.get_by_role("link", name="focus-b")
        await one.focus()
        await site.network("focus-a", subnets=[{"cidr": "10.91.1.0/24"}])
        await site.api.endpoint("focus-b", host="h1")
        await shows(page, "tbody tr", "1/253")
        await shows(page, "tbody tr", "focus-a")

        assert await one.evaluate("(one) => document.activeElement === one")


async def test_a_command_is_copied(site: Site) -> None:
    async with site.page("#/hosts", permissions=["clipboard-read", "clipboard-write"]) as page:
        line = await page.locator("[data-command=cli]").first.inner_text()
        await page.get_by_role("button", name="Copy the kvnet command: All hosts").click()
        await shows(page, ".command button", "Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == line


async def test_nothing_moves_for_who_asks_for_that_and_paper_has_the_facts(site: Site, places: list[str]) -> None:
    async with site.page(places[2], reduced_motion="reduce") as page:
        moving = await page.evaluate("document.getAnimations().length")
        await page.emulate_media(media="print")

        assert moving == 0
        assert not await page.locator("#search").is_visible()
        assert await page.locator(".facts").is_visible()
        assert await page.locator("section[aria-label=Endpoints] tbody tr").first.is_visible()
