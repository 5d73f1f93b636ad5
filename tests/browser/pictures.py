"""`python -m tests.browser.pictures`: takes the pictures of docs/dashboard.md anew, from a world made for them.

Each is a real page of a real controller; only the hosts are there in name alone. Colours are reduced to a palette,
which makes a picture a third as large and is not seen.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
import zlib
from collections import Counter
from ipaddress import ip_address
from typing import Any

from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Host
from tests.browser.site import CHECKOUT, Site, holds, site_of, started

IMAGES = CHECKOUT / "docs" / "images"
HOSTS = [f"node-{i}" for i in range(1, 13)]
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 800},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 1.5,
}
PALETTE = 256


async def seed(site: Site) -> None:
    """A site of twelve hosts, two of them in trouble."""
    for number, name in enumerate(HOSTS, start=1):
        host = Host(name, ip_address(f"192.0.2.{number + 10}"), 9000)
        await site.store.commit([], [Put(keys.host(name), codec.encode(host))])
    for name in ("h0", "h1", "h2"):
        await site.api.delete(f"/v1/hosts/{name}?force=true")
    rng = random.Random(7)
    networks = {}
    for name, team, cidr, count in (
        ("shop", "red", "10.10.0.0/24", 19),
        ("payments", "red", "10.10.1.0/27", 28),
        ("metrics", "ops", "10.10.2.0/24", 60),
        ("batch", "data", "10.20.0.0/20", 640),
    ):
        networks[name] = await site.network(name, subnets=[{"cidr": cidr}], labels={"team": team})
        some = HOSTS[:4] if name == "shop" else HOSTS[:-1]
        items = [{"host": rng.choice(some), "name": f"{name}-{i}"} for i in range(count)]
        for first in range(0, count, 500):
            await site.api.post(f"/v1/networks/{name}/endpoints", {"items": items[first : first + 500]})
    await site.api.post("/v1/networks/shop/peers/payments")
    await site.api.post("/v1/networks/shop/reservations", {"name": "printer", "address": "10.10.0.40"})
    web = await site.api.endpoint("shop", host="node-2", name="web", ports=[{"port": 80, "host_port": 8080}])
    await site.api.http.patch(f"/v1/networks/shop/endpoints/{web['id']}", json={"labels": {"version": "42"}})
    await site.lives(*HOSTS[:-1])
    ids = [one["id"] for one in networks.values()]
    told = ("forward-blocked", "chain forward of table inet corp drops what kvnet lets through")
    for name in HOSTS[:-1]:
        await site.reports(name, ids, *([told] if name == "node-4" else []))


async def take(site: Site) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, place, options, scroll in (
        ("overview", "#/", WIDE, 0),
        ("network", "#/networks/shop", WIDE, 230),
        ("networks", "#/networks", {**WIDE, "viewport": {"width": 1280, "height": 480}}, 0),
        ("hosts", "#/hosts", {**WIDE, "color_scheme": "dark"}, 0),
        ("phone", "#/networks/shop", PHONE, 980),
    ):
        async with site.page(place, **options) as page:
            await page.locator("main .command").first.wait_for(state="attached")
            if "/shop" in place:
                await page.locator(".graph canvas").first.wait_for()
                await page.locator("section[aria-label=Convergence] tbody tr").first.wait_for()
                await page.locator("canvas.addresses").focus()
            await page.evaluate("(y) => { document.activeElement?.blur?.(); scrollTo(0, y); }", scroll)
            await holds(page, "document.querySelectorAll('main tbody tr, main .changes li').length > 0")
            await page.wait_for_timeout(300)  # a picture of a page at rest
            picture = smaller(await page.screenshot())
            (IMAGES / f"dashboard-{name}.png").write_bytes(picture)
            print(f"dashboard-{name}.png: {len(picture) // 1024} KB")


def smaller(png: bytes) -> bytes:
    """The same picture with at most 256 colours."""
    width, height, channels, rows = _decoded(png)
    pixels = [row[i : i + 3] for row in rows for i in range(0, width * channels, channels)]
    counted = Counter(pixels)
    palette = [colour for colour, _ in counted.most_common(PALETTE)]
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in counted:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda i: _distance(palette[i], colour))
    flat = bytes(index[pixel] for pixel in pixels)
    lines = b"".join(b"\0" + flat[y * width : (y + 1) * width] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return png[:8] + b"".join(_chunk(kind, data) for kind, data in parts)


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _decoded(png: bytes) -> tuple[int, int, int, list[bytes]]:
    """Width, height, bytes of a pixel, and the rows, of a picture of 8 bits a channel without a palette."""
    at, packed, width, height, channels = 8, b"", 0, 0, 3
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", data[:10])
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += data
        at += length + 12
    plain, stride = zlib.decompress(packed), width * channels
    rows, above = [], bytes(stride)
    for y in range(height):
        start = y * (stride + 1)
        above = _unfiltered(plain[start], bytearray(plain[start + 1 : start + 1 + stride]), above, channels)
        rows.append(above)
    return width, height, channels, rows


def _unfiltered(kind: int, row: bytearray, above: bytes, step: int) -> bytes:
    for i in range(len(row) if kind else 0):
        left = row[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[i]
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            near = left + above[i] - corner
            guess = min((left, above[i], corner), key=lambda one: abs(near - one))
        row[i] = (row[i] + guess) & 255
    return bytes(row)


async def main() -> None:
    began = time.monotonic()
    async with started() as browser, site_of(browser) as site:
        await seed(site)
        await take(site)
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    asyncio.run(main())
