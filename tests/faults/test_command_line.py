"""Arguments of a clumsy user: a message, an exit code, never a stack trace, never another thing than the named one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kvnet.client import Client
from kvnet.errors import Invalid
from lab.processes import KVNET
from tests.api.under_test import Api

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0


async def kvnet(api: Api, *arguments: str, **environment: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *KVNET,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "KVNET_CONTROLLER": api.url, **environment},
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            said, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        pytest.fail("it went on")
    return child.returncode or 0, said.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["network", "create", "a;b"], 2, "not a name"),
        (["network", "create", "x", "--label", "a=\x1b[2J"], 2, "unprintable"),
        (["network", "rm", "a/b"], 2, "is not a name or id"),
        (["network", "rm", "../x"], 2, "is not a name or id"),
        (["ipam", "show", "10.1.0.0/99"], 2, "is not a name or id"),
        (["network", "ls", "--controller", "https://[::1"], 2, "is not the address of a controller"),
        (["network", "ls", "--controller", "http://h:99999"], 2, "is not the address of a controller"),
        (["network", "ls", "--controller", "ftp://h"], 2, "is not the address of a controller"),
        (["network", "ls", "--controller", "http://u:secret@h"], 2, "leave it out"),
        (["--token-file", "/dev/zero", "network", "ls"], 2, "holds no token"),
        (["--token-file", "/bin/sh", "network", "ls"], 2, "holds no token"),
        (["controller", "--store", "memory://", "--listen", "127.0.0.1:0", "--name", "a;\nb"], 2, "is not a name"),
        (["controller", "--store", "memory://", "--listen", "", "--listen-unix", "/etc/passwd"], 4, "not a socket"),
    ],
)
async def test_nonsense_is_refused_in_words(api: Api, arguments: list[str], code: int, says: str) -> None:
    ended, said = await kvnet(api, *arguments)

    assert says in said
    assert ended == code, said
    assert "Traceback" not in said
    assert "secret" not in said
    assert "\x1b" not in said
    lines = said.splitlines()
    assert len(lines) == len(set(lines)), "nothing is said twice"


@pytest.mark.parametrize("token", ["é", "a\nb", "a b", "\x7f"])
async def test_a_token_that_no_header_can_carry_is_told(api: Api, token: str) -> None:
    ended, said = await kvnet(api, "network", "ls", KVNET_TOKEN=token)

    assert (ended, "the token" in said) == (2, True), said
    assert "Traceback" not in said


async def test_a_name_with_a_slash_reaches_no_other_resource(api: Api) -> None:
    network = await api.network()
    endpoint = await api.endpoint(network["id"])
    async with Client(api.url) as client:
        with pytest.raises(Invalid):
            await client.delete_network(f"{network['id']}/endpoints/{endpoint['id']}")
    assert (await api.get(f"/v1/networks/{network['id']}/endpoints/{endpoint['id']}")).status_code == 200


async def test_a_token_file_is_read(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123-abc\n")
    status, said = await kvnet(api, "--token-file", str(file), "network", "ls")
    assert (status, "token" in said, "0123-abc" in said) == (1, True, False), said
