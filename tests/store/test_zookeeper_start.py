"""Who we are to a ZooKeeper, and whom we believe: logins, ACLs, certificates."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kazoo.security import READ_ACL_UNSAFE, make_digest_acl

from backends.store import (
    Put,
    Refused,
    Unavailable,
)
from backends.url import Endpoint, Secret, parse_server_url
from backends.zookeeper import ZookeeperMedium, connect
from backends.zookeeper_wire import Exists
from kvnet.errors import StoreForbidden, StoreLoginRefused, StoreUntrusted
from tests.servers.cluster import Cluster
from tests.servers.family import Credentials
from tests.store import zookeeper_kit as kit
from tests.store.watching import until
from tests.store.zookeeper_kit import connected, plain_client

pytestmark = pytest.mark.anyio
cluster = kit.cluster


async def test_sasl_a_right_password_owns_its_nodes_and_a_wrong_one_is_told_at_the_door(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, auth=True) as cluster:
        who, stranger = await cluster.grant(""), await cluster.stranger()
        async with connected(cluster.url(who=who)) as medium:
            await medium.commit([], [Put("a", b"")])
            acl = await asyncio.to_thread(medium._bridge._client.get_acls, "/kvnet/data")
            assert [str(one.id.id) for one in acl[0]] == [who.user]
        with pytest.raises(StoreLoginRefused) as refused:
            await connect(parse_server_url(cluster.url(who=Credentials(who.user, "guessed-wrong")), {}))
        assert "guessed-wrong" not in f"{refused.value!r} {refused.value}"
        with pytest.raises(StoreForbidden):
            await connect(parse_server_url(cluster.url(who=stranger), {}))


async def test_sasl_a_password_that_is_put_right_in_its_file_is_used_without_a_restart(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, auth=True) as cluster:
        who = await cluster.grant("")
        file = tmp_path / "password"
        file.write_text(who.password)
        url = replace(parse_server_url(cluster.url(who=who), {}), secret=Secret(file=str(file)))
        medium = await connect(url)
        await medium.commit([], [Put("a", b"1")])
        file.write_text("changed at the wrong end")
        await cluster.restart_all()
        await until(lambda: medium._bridge.refusals >= 3, deadline_s=20)
        with pytest.raises(Refused):
            await medium.read(["a"])
        file.write_text(who.password)
        await until(lambda: medium._bridge.is_connected, deadline_s=20)
        await until_served(medium)
        await medium.close()


async def until_served(medium: ZookeeperMedium) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await medium.read(["a"])
                return
            except (Unavailable, Refused):
                await asyncio.sleep(0.1)


async def test_digest_a_wrong_password_is_another_identity_and_the_error_says_so(cluster: Cluster) -> None:
    root = f"digest-{uuid.uuid4().hex}"
    right, wrong = Credentials("kvnet", "right-p:w/"), Credentials("kvnet", "wrong-password")
    async with connected(cluster.url(root, right)) as medium:
        await medium.commit([], [Put("a", b"")])
    async with connected(cluster.url(root, right)) as medium:
        assert len((await medium.scan("")).entries) == 1
    with pytest.raises(StoreForbidden, match="wrong password") as caught:
        await connect(parse_server_url(cluster.url(root, wrong), {}))
    assert "wrong-password" not in f"{caught.value!r}"
    with pytest.raises(StoreForbidden):
        await connect(parse_server_url(cluster.url(root), {}))


async def test_a_root_that_may_be_read_only_is_refused_and_nothing_is_tried_on_it(cluster: Cluster) -> None:
    root = f"readable-{uuid.uuid4().hex}"
    async with plain_client(cluster, auth_data=[("digest", "admin:admin")]) as client:
        acl = [*READ_ACL_UNSAFE, make_digest_acl("admin", "admin", all=True)]
        await asyncio.to_thread(client.create, f"/{root}", b"", acl)
        with pytest.raises(StoreForbidden, match="writing"):
            await connect(parse_server_url(cluster.url(root), {}))
        with pytest.raises(StoreForbidden, match="writing"):
            await connect(parse_server_url(cluster.url(f"{root}/below"), {}))
        assert await asyncio.to_thread(client.get_children, f"/{root}") == []


async def test_tls_only_the_given_authority_and_the_right_host_name_are_believed(tmp_path: Path) -> None:
    async with Cluster("zookeeper", tmp_path, client_certificates=True) as cluster:
        files = cluster.certificates
        assert files is not None
        url = parse_server_url(cluster.url(), {})
        assert url.tls is not None
        async with connected(cluster.url()) as medium:
            # Answers that TLS has decrypted already wake nobody who waits for the socket.
            await medium.commit([], [Put(f"k/{i}", bytes(1000)) for i in range(50)])
            for _ in range(5):
                began = time.monotonic()
                await asyncio.gather(*(medium._bridge.ask(Exists(medium._layout.head)) for _ in range(100)))
                await medium.scan("")
                assert time.monotonic() - began < 3, "the next ping woke it"

        with pytest.raises(StoreUntrusted, match="certificate is not accepted here"):
            await connect(replace(url, tls=replace(url.tls, ca=str(files.wrong_ca))))
        wrong = files.wrong_client
        with pytest.raises(StoreUntrusted, match="does not accept our certificate"):
            await connect(replace(url, tls=replace(url.tls, cert=str(wrong.cert), key=str(wrong.key))))
        with pytest.raises(StoreUntrusted, match="does not accept our certificate"):
            await connect(replace(url, tls=replace(url.tls, cert="", key="")))
        async with relay("127.0.0.2", url.endpoints[0].port) as port:
            elsewhere = Endpoint("127.0.0.2", port)
            with pytest.raises(StoreUntrusted, match="IP address mismatch"):
                await connect(replace(url, endpoints=(elsewhere,)))
        with pytest.raises(StoreUntrusted, match="cannot be used"):
            await connect(replace(url, tls=replace(url.tls, ca=str(files.client.key))))


async def test_tls_to_a_plain_port_says_so(cluster: Cluster) -> None:
    with pytest.raises(StoreUntrusted, match="does not speak TLS"):
        await connect(parse_server_url(f"zks://{cluster.endpoints[0]}/kvnet", {}))


@asynccontextmanager
async def relay(host: str, target: int) -> AsyncIterator[int]:
    """The same server at another address."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, to_there), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
