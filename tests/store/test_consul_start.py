"""Who is let in by Consul, and who is refused at the door: tokens, certificates, what is no Consul at all."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import cast

import pytest

from backends.consul import ConsulMedium
from backends.store import (
    Absent,
    Put,
    Refused,
)
from backends.url import parse_server_url
from kvnet.errors import StoreBroken, StoreForbidden, StoreLoginRefused, StoreUntrusted
from tests.servers.cluster import Cluster
from tests.servers.consul import MANAGEMENT_TOKEN, Consul
from tests.store import consul_kit as kit
from tests.store.consul_kit import following, next_step, opened, raw, roots, told_until

pytestmark = pytest.mark.anyio
server = kit.server
guarded = kit.guarded


async def token_for(cluster: Cluster, rules: str) -> str:
    family = cast(Consul, cluster.family)
    name = f"policy-{next(roots)}"
    await family.change("/v1/acl/policy", {"Name": name, "Rules": rules})
    return str((await family.change("/v1/acl/token", {"Policies": [{"Name": name}]}))["SecretID"])


def with_token(cluster: Cluster, token: str, root: str = "kvnet") -> str:
    return cluster.url(root).replace("://", f"://:{token}@", 1)


async def test_a_denied_transaction_is_refused_and_not_a_conflict(guarded: Cluster) -> None:
    """Consul answers both with 409."""
    reader = await token_for(guarded, 'key_prefix "kvnet/" { policy = "read" }')
    medium = await _without_welcome(with_token(guarded, reader))
    with pytest.raises(Refused, match="may not"):
        await medium.commit([Absent("k")], [Put("k", b"")])
    await medium.close()


async def test_a_denied_list_is_refused_and_not_an_empty_store(guarded: Cluster) -> None:
    """Consul answers both with 404, or with an empty transaction."""
    async with opened(with_token(guarded, MANAGEMENT_TOKEN)) as owner:
        await owner.commit([], [Put("k", b"")])
    stranger = await token_for(guarded, 'key_prefix "other/" { policy = "write" }')
    medium = await _without_welcome(with_token(guarded, stranger))
    for denied in (medium.scan(""), medium.scan("k"), medium.read(["k"]), medium.commit([], [Put("k", b"")])):
        with pytest.raises(Refused):
            await denied
    await medium.close()


async def _without_welcome(url: str) -> ConsulMedium:
    """As when the permission is taken away while we run."""
    from backends.consul_http import ConsulHttp

    return ConsulMedium(
        ConsulHttp(parse_server_url(url, {})), "kvnet", rng=random.Random(1), clock=time.monotonic, sleep=asyncio.sleep
    )


@pytest.mark.parametrize(
    "rules", ["", 'key_prefix "kvnet/" { policy = "read" }', 'key_prefix "x" { policy = "write" }']
)
async def test_a_token_without_the_right_to_read_and_write_is_forbidden_at_start(guarded: Cluster, rules: str) -> None:
    with pytest.raises(StoreForbidden, match="may not"):
        async with opened(with_token(guarded, await token_for(guarded, rules))):
            pass


async def test_no_token_where_one_is_needed_is_forbidden_at_start(guarded: Cluster) -> None:
    with pytest.raises(StoreForbidden, match="may not read or write"):
        async with opened(guarded.url("kvnet")):
            pass


async def test_an_unknown_token_is_a_refused_login_and_is_not_shown(guarded: Cluster) -> None:
    token = "5ec2e700-0000-4000-8000-000000000000"
    with pytest.raises(StoreLoginRefused) as caught:
        async with opened(with_token(guarded, token)):
            pass
    assert token not in str(caught.value) + repr(caught.value) + caught.value.fix


async def test_a_token_with_the_prefix_a_certificate_and_default_deny_serves(guarded: Cluster) -> None:
    who = await guarded.grant("/kvnet/")
    async with opened(guarded.url("kvnet", who)) as medium, following(medium) as steps:
        await next_step(steps)
        revision = await medium.commit([], [Put("served", b"yes")])
        assert (await told_until(steps, revision))["served"] == b"yes"


async def test_a_token_that_was_changed_in_its_file_is_taken(guarded: Cluster, tmp_path: Path) -> None:
    rules = 'key_prefix "kvnet/" { policy = "write" }'
    file = tmp_path / "token"
    first = await token_for(guarded, rules)
    file.write_text(first)
    async with opened(f"{guarded.url('kvnet')}&token_file={file}") as medium:
        await medium.commit([], [Put("k", b"")])
        family = cast(Consul, guarded.family)
        [accessor] = await _accessors(guarded, first)
        await family._ask(0, "DELETE", f"/v1/acl/token/{accessor}")
        with pytest.raises(Refused, match="does not know the token"):
            await medium.commit([], [Put("k", b"")])
        file.write_text(await token_for(guarded, rules))
        await medium.commit([], [Put("k", b"again")])


async def _accessors(cluster: Cluster, token: str) -> list[str]:
    family = cast(Consul, cluster.family)
    _, tokens = await family._ask(0, "GET", "/v1/acl/tokens")
    found = []
    for one in tokens:
        _, full = await family._ask(0, "GET", f"/v1/acl/token/{one['AccessorID']}")
        if full["SecretID"] == token:
            found.append(one["AccessorID"])
    return found


async def test_a_server_of_another_authority_is_untrusted(guarded: Cluster) -> None:
    assert guarded.certificates is not None
    url = with_token(guarded, MANAGEMENT_TOKEN).replace(
        str(guarded.certificates.ca), str(guarded.certificates.wrong_ca)
    )
    with pytest.raises(StoreUntrusted, match="not trusted"):
        async with opened(url):
            pass


@pytest.mark.parametrize("shown", ["none", "wrong"])
async def test_a_client_without_a_certificate_that_the_server_accepts_is_untrusted(
    guarded: Cluster, shown: str
) -> None:
    certificates = guarded.certificates
    assert certificates is not None
    url = f"consuls://{guarded.endpoints[0]}/kvnet?ca={certificates.ca}"
    if shown == "wrong":
        url += f"&cert={certificates.wrong_client.cert}&key={certificates.wrong_client.key}"
    with pytest.raises(StoreUntrusted, match="certificate"):
        async with opened(url):
            pass


async def test_plain_http_to_a_tls_server_and_the_reverse_are_told_apart(guarded: Cluster, server: Cluster) -> None:
    with pytest.raises(StoreUntrusted, match="speaks TLS only"):
        async with opened(f"consul://{guarded.endpoints[0]}/kvnet"):
            pass
    with pytest.raises(StoreUntrusted, match="does not speak TLS"):
        async with opened(f"consuls://{server.endpoints[0]}/kvnet"):
            pass


async def test_a_certificate_file_that_is_none_is_untrusted(server: Cluster, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(StoreUntrusted, match="cannot be used"):
        async with opened(f"consuls://{server.endpoints[0]}/kvnet?ca={tmp_path / 'ca.pem'}"):
            pass


async def test_connecting_writes_nothing(server: Cluster) -> None:
    root = f"untouched{next(roots)}"
    async with opened(server.url(root)):
        pass

    assert (await raw(server, "GET", f"/v1/kv/{root}?keys"))[0] == 404


async def test_something_that_is_not_consul_is_broken() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        with pytest.raises(StoreBroken):
            async with opened(f"consul://127.0.0.1:{other.sockets[0].getsockname()[1]}/kvnet"):
                pass
