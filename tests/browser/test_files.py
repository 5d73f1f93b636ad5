"""How the dashboard's files are served, and that nothing in them could turn text into markup or leave the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from controller.api.web import FILES, files
from tests.api.under_test import problem_of
from tests.browser.site import CHECKOUT, Site

pytestmark = pytest.mark.anyio

# What makes code or markup of text, or reaches around h().
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\s*\(|new Function|createContextualFragment"
    r"|DOMParser|setHTML|\.srcdoc|javascript:|cssText|setTimeout\s*\(\s*['\"`]|\.src\s*=|\.href\s*="
)
LONGEST_MODULE = 260
ADDRESS = re.compile(r"https?://(?!127\.0\.0\.1)[^\s'\"`)]+")
NAMESPACES = {"http://www.w3.org/2000/svg"}


def own_files() -> Iterator[Path]:
    yield from (path for path in FILES.rglob("*") if path.is_file() and path.parent.name != "vendor")


def vendored() -> Iterator[tuple[Path, str, str]]:
    for page in (FILES / "vendor" / "VENDOR.md", Path(__file__).parent / "vendor" / "VENDOR.md"):
        for name, total in re.findall(r"^\| `(.+?)` \| `([0-9a-f]{64})` \|$", page.read_text(), re.MULTILINE):
            yield page.parent / name, name, total


def test_no_module_can_make_markup_of_text() -> None:
    for path in own_files():
        found = FORBIDDEN.findall(path.read_text())
        assert found == [], f"{path.relative_to(CHECKOUT)}: use h() and show() of lib/dom.js"


def test_attributes_are_set_by_h_alone() -> None:
    allowed = {"lib/dom.js": 1}
    for path in own_files():
        calls = re.findall(r"\.setAttribute\((?!'(?:aria-|tabindex))", path.read_text())
        assert len(calls) == allowed.get(str(path.relative_to(FILES)), 0), path


def test_nothing_of_it_names_another_host() -> None:
    for path in own_files():
        assert set(ADDRESS.findall(path.read_text())) <= NAMESPACES, path


def test_there_is_no_inline_code_and_no_inline_style_in_the_page() -> None:
    page = (FILES / "index.html").read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page) == []


def test_modules_stay_small_and_say_why_they_exist() -> None:
    for path in own_files():
        if path.suffix == ".js":
            text = path.read_text()
            assert text.startswith("/**"), path
            assert text.count("\n") <= LONGEST_MODULE, path


def test_vendored_files_are_the_published_ones() -> None:
    known = list(vendored())
    assert {name for _, name, _ in known} >= {"cytoscape.esm.min.mjs", "axe.min.js"}
    for path, name, total in known:
        assert sha256(path.read_bytes()).hexdigest() == total, name


async def test_a_browser_gets_the_page_and_a_program_what_it_can_use(site: Site) -> None:
    page = await site.api.get("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    text = await site.api.get("/", Accept="*/*")
    head = await site.api.http.head("/", headers={"Accept": "text/html"})

    assert page.headers["content-type"].startswith("text/html")
    assert text.headers["content-type"].startswith("text/plain")
    assert "/docs" in text.text
    assert "kvnet status" in text.text
    assert "Accept" in page.headers["vary"]
    assert "Accept" in text.headers["vary"]
    assert head.status_code == 200
    assert not head.content


async def test_every_answer_has_the_policy_and_every_file_its_type(site: Site) -> None:
    expected = {".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml"}
    for name in files():
        answer = await site.api.get(f"/dashboard/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].startswith(expected[Path(name).suffix]), name
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


async def test_what_did_not_change_is_not_sent_again(site: Site) -> None:
    for path in ("/", "/dashboard/app.js", "/dashboard/vendor/cytoscape.esm.min.mjs"):
        first = await site.api.get(path, Accept="text/html")
        again = await site.api.get(path, **{"Accept": "text/html", "If-None-Match": f'W/"0", {first.headers["etag"]}'})

        assert first.headers["cache-control"] == "no-cache"
        assert again.status_code == 304
        assert not again.content
        assert again.headers["etag"] == first.headers["etag"]


async def test_large_files_are_compressed_for_who_can_read_that(site: Site) -> None:
    path = "/dashboard/vendor/cytoscape.esm.min.mjs"
    small = await site.api.get(path, **{"Accept-Encoding": "br, gzip"})
    plain = await site.api.get(path, **{"Accept-Encoding": "gzip;q=0, identity"})

    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert small.content == plain.content


async def test_other_paths_are_problems_and_lead_nowhere(site: Site) -> None:
    for path in (
        "nothing.js",
        "index.html",
        "vendor/VENDOR.md",
        "../api/web.py",
        "%2e%2e/api/web.py",
        "lib/",
        "lib//dom.js",
    ):
        answer = await site.api.get(f"/dashboard/{path}")
        problem_of(answer, 404, answer.json()["code"])
    assert (await site.api.get("/dashboard")).headers["location"] == "./"
    assert (await site.api.get("/dashboard/")).headers["location"] == "../"


def test_the_pictures_of_the_documentation_are_there_and_small() -> None:
    text = (CHECKOUT / "docs" / "dashboard.md").read_text()
    named = set(re.findall(r"\]\((images/[^)]+)\)", text))
    taken = {f"images/{path.name}" for path in (CHECKOUT / "docs" / "images").glob("dashboard-*.png")}

    assert named <= taken
    assert all((CHECKOUT / "docs" / name).stat().st_size < 60_000 for name in taken)
