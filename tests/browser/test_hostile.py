"""Whatever somebody names a thing, writes into a label or reports, it is shown as text and is a word in a shell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.async_api import Page, Route

from tests.browser.site import Site, shows

pytestmark = pytest.mark.anyio

MARKUP = "<img src=x onerror=window.pwned=1>"
HOSTILE = (
    MARKUP,
    '"><script>window.pwned=1</script>',
    "' onmouseover='window.pwned=1' x='",
    "javascript:window.pwned=1",
    "</title><svg onload=window.pwned=1>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "$(touch pwned); `touch pwned` \\' \" \n\x1b]0;pwned\x07 & |",
)
PRINTABLE = tuple("".join(c for c in text if c.isprintable()) for text in HOSTILE)  # as the API demands of labels


async def unharmed(page: Page) -> None:
    assert await page.evaluate("window.pwned") is None
    assert await page.evaluate("document.querySelectorAll('main img, main script, main svg').length") == 0


async def test_labels_are_text_wherever_they_are_shown(site: Site) -> None:
    labels = {f"k{i}": text for i, text in enumerate(PRINTABLE)}
    await site.network("labelled", labels=labels)
    await site.api.endpoint("labelled", name="e-labelled", labels=labels)
    places = ("#/networks", "#/networks/labelled", "#/events", "#/search?q=labelled", "#/hosts/h1", "#/")
    async with site.page("#/") as page:
        for place in places:
            await page.evaluate("place => (location.hash = place)", place)
            await page.locator("main").filter(has_text="labelled").wait_for()
            for summary in await page.locator(".changes summary").all():
                await summary.click()
            await unharmed(page)
        await page.evaluate("location.hash = '#/networks?filter=labelled'")
        for text in PRINTABLE:
            shown = await page.locator("tbody .label").all_text_contents()
            assert any(text in one for one in shown), text


async def test_what_hosts_report_is_text(site: Site) -> None:
    network = await site.network("reported")
    await site.api.endpoint("reported", host="h0")
    await site.lives("h0")
    await site.reports("h0", [network["id"]], *((f"code-{i}", text) for i, text in enumerate(HOSTILE)))
    async with site.page("#/") as page:
        for place, where in (
            ("#/", "#problems"),
            ("#/hosts/h0", "main"),
            ("#/networks/reported", "main"),
            ("#/hosts", "main"),
        ):
            await page.evaluate("place => (location.hash = place)", place)
            await shows(page, where, "code-0")
            await unharmed(page)
        await page.evaluate("location.hash = '#/hosts/h0'")
        for text in HOSTILE:
            assert any(text in shown for shown in await page.locator(".problems .detail").all_text_contents()), text


def renamed(value: Any, name: str) -> Any:
    """Every text that is or could be a name is the hostile one."""
    names = {
        "name",
        "network_name",
        "hostname",
        "detail",
        "reason",
        "code",
        "actor",
        "source",
        "holder",
        "driver",
        "store",
    }
    if isinstance(value, dict):
        return {
            key: name if key in names and isinstance(one, str) else renamed(one, name) for key, one in value.items()
        }
    return [renamed(one, name) for one in value] if isinstance(value, list) else value


def answering(name: str) -> Callable[[Route], Any]:
    """A controller gone mad: it lets names through that no rule allows."""

    async def answer(route: Route) -> None:
        if "/v1/events" in route.request.url:
            await route.fallback()
            return
        response = await route.fetch()
        body = json.dumps(renamed(json.loads(await response.text()), name))
        await route.fulfill(status=response.status, content_type="application/json", body=body)

    return answer


async def test_names_that_no_rule_allows_are_text_too_in_titles_attributes_and_links(site: Site) -> None:
    network = await site.network("mad")
    made = await site.api.endpoint("mad")
    async with site.page("#/", excused=["Failed to load resource"]) as page:
        for name in (HOSTILE[1], HOSTILE[-1]):
            await page.route("**/v1/**", answering(name))
            for place in (
                "#/networks",
                "#/hosts",
                "#/",
                "#/events",
                f"#/networks/{network['id']}",
                f"#/hosts/{quote(name, safe='')}",
            ):
                await page.evaluate("place => (location.hash = place)", place)
                await page.reload()
                await page.locator("main h1").first.wait_for()
                await unharmed(page)
            place = f"#/networks/{network['id']}/endpoints/{made['id']}"
            await page.evaluate("place => (location.hash = place)", place)
            await page.locator(".facts").wait_for()
            assert (await page.title()).startswith(name[:20])
            links = await page.evaluate("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))")
            assert all(link.startswith(("#", "docs", "metrics", "readyz")) for link in links), links
            await unharmed(page)
            await page.unroute("**/v1/**")


async def test_what_an_address_bar_says_is_text_and_a_word_in_a_shell(site: Site) -> None:
    async with site.page("#/", excused=["404", "422"]) as page:
        for text in (*HOSTILE, "--help", "-rf"):
            for place, kind in (("#/networks/", "cli"), ("#/hosts/", "cli"), ("#/search?q=", "cli")):
                await page.evaluate("place => (location.hash = place)", place + quote(text, safe=""))
                asked = text.strip() if "search" in place else text
                await page.locator("main").filter(has_text=asked.split("\n")[0][:12].strip()).first.wait_for()
                line = await page.locator(f"[data-command={kind}]").first.text_content() or ""
                assert any(asked in word for word in await words(line)), line
            await unharmed(page)


async def words(line: str) -> list[str]:
    """As bash reads them; nothing of it is run."""
    script = f"printf '%s\\0' {line}"
    shell = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=asyncio.subprocess.PIPE)
    told, _ = await shell.communicate()
    return told.decode().split("\0")


async def test_every_text_is_one_word_in_a_shell(site: Site) -> None:
    """Many at once: what bash reads from the quoted text is the text."""
    texts: list[str] = []

    @given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    async with site.page("#/") as page:
        quoted = await page.evaluate(
            """async (texts) => {
                const {quoted} = await import('./dashboard/lib/commands.js');
                return texts.map(quoted).join(' ');
            }""",
            texts,
        )
    assert (await words(quoted))[:-1] == texts
