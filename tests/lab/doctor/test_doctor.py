"""The examination of real hosts in a lab: what is planted is found, by the worker and without one; nothing changes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import HostSilent
from lab import namespaces
from lab.lab import Lab, until
from lab.processes import KVNET
from tests.lab.connectivity.asking import opened, run
from tests.lab.connectivity.test_hosts import plant, pull_out
from worker.kernel.firewall import find_nft

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

# Of the machine that the tests run on, not of what is planted.
MACHINES = frozenset({"clock.synchronised", "settings.neighbours4", "settings.neighbours6", "settings.rp_filter"})


async def examined(lab: Lab, host: str) -> dict[str, dict[str, Any]]:
    report = await lab.client.examine_host(host)
    assert report["host"] == host
    return {check["id"]: check for check in report["checks"]}


def wrong(checks: dict[str, dict[str, Any]]) -> set[str]:
    return {id_ for id_, check in checks.items() if check["status"] in ("warn", "fail")} - MACHINES


async def test_a_host_that_is_well_is_found_well_through_its_worker(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        checks = await examined(lab, "h1")

        assert wrong(checks) == set(), [checks[id_] for id_ in wrong(checks)]
        assert checks["underlay.address"]["found"] == "198.18.0.1 on eth0"
        assert checks["underlay.port"]["found"] == "UDP port 4789: 1 tunnel of kvnet"
        assert checks["kernel.vxlan"]["status"] == "ok"
        assert checks["store.in_step"]["status"] == "ok"
        assert checks["controller.reachable"]["status"] == "ok"
        assert checks["clock.offset"]["status"] == "ok"
        assert checks["docker.engine"]["status"] == "skipped"


async def test_what_is_planted_is_found_with_the_rule_the_device_or_the_setting(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        h1 = lab.hosts["h1"].netns

        plant(h1, "input", "udp dport 4789 drop")
        checks = await examined(lab, "h1")
        assert wrong(checks) == {"firewall.tunnels_in"}
        assert checks["firewall.tunnels_in"]["found"] == "dropped by inet foe c: udp dport 4789 drop"
        run(h1, checks["firewall.tunnels_in"]["fix"])
        assert wrong(await examined(lab, "h1")) == set(), "what it says to do helps"
        pull_out(h1)

        plant(h1, "forward", "counter")
        run(h1, "nft 'chain inet foe c { policy drop ; }'")
        checks = await examined(lab, "h1")
        assert checks["firewall.forward"]["found"] == "dropped by inet foe c: policy drop"
        run(h1, checks["firewall.forward"]["fix"].replace("'", ""))
        assert "firewall.forward" not in wrong(await examined(lab, "h1"))
        pull_out(h1)

        run(h1, "ip link add kvbforeign type bridge")
        checks = await examined(lab, "h1")
        assert "kvbforeign" in checks["worker.foreign"]["found"]
        run(h1, "ip link del kvbforeign")

        run(h1, "ip link set eth0 mtu 1400")
        await _until_known(lab, "h1", 1400)
        other = await examined(lab, "h2")
        assert wrong(other) == {"underlay.peers"}
        assert "h1: 1400" in other["underlay.peers"]["found"]


async def _until_known(lab: Lab, host: str, mtu: int) -> None:
    async def is_known() -> bool:
        return (await lab.client.get_host(host))["mtu"] == mtu

    await until(is_known, f"{host} has told its MTU", seconds=10.0)


async def test_a_host_whose_worker_is_dead_is_told_by_the_controller(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        worker = lab.hosts["h2"].worker
        assert worker is not None
        await worker.kill()

        with pytest.raises(HostSilent, match="h2"):
            await lab.client.examine_host("h2")


async def command(lab: Lab, host: str, *arguments: str) -> tuple[int, str]:
    """`kvnet` in the host's namespace, as an operator there would type it."""
    place = lab.hosts[host]
    environment = {**os.environ, "KVNET_CONTROLLER": lab.controller_url, "KVNET_SOCKET": str(place.socket)}

    def called() -> subprocess.CompletedProcess[str]:
        return namespaces.call(
            place.netns,
            lambda: subprocess.run(
                [*KVNET, *arguments], capture_output=True, text=True, timeout=40, check=False, env=environment
            ),
        )

    done = await asyncio.to_thread(called)
    return done.returncode, done.stdout + done.stderr


async def test_the_command_examines_its_own_host_with_and_without_a_worker(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        code, text = await command(lab, "h1", "doctor")
        assert code == 0, text
        assert "underlay.address" in text
        assert "h1: " in text.splitlines()[-1]

        code, text = await command(lab, "h1", "doctor", "--local", "--underlay", "eth0", "-o", "json")
        report = json.loads(text)
        checks = {check["id"]: check for check in report["checks"]}
        assert code == 0
        assert checks["underlay.address"]["found"] == "198.18.0.1 on eth0"
        assert checks["worker.leftovers"]["status"] == "skipped"

        code, text = await command(lab, "h1", "--socket", "/nowhere.sock", "doctor", "-o", "json")
        checks = {check["id"]: check for check in json.loads(text)["checks"]}
        assert checks["worker.running"]["status"] == "warn"
        assert checks["worker.leftovers"]["status"] == "warn", "to whom sees no worker these devices are nobody's"

        plant(lab.hosts["h1"].netns, "input", "udp dport 4789 drop")
        code, text = await command(lab, "h1", "doctor", "-q")
        assert code == 1
        assert "dropped by inet foe c: udp dport 4789 drop" in text
        assert "underlay.address" not in text, "only what is not well"


async def test_all_hosts_are_examined_from_anywhere_and_a_silent_one_is_a_failure(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        code, text = await command(lab, "h1", "doctor", "--all", "-o", "json")
        assert code == 0
        assert [report["host"] for report in json.loads(text)] == ["h1", "h2"]
        code, text = await command(lab, "h1", "doctor", "h2")
        assert code == 0, text

        worker = lab.hosts["h2"].worker
        assert worker is not None
        await worker.kill()
        code, text = await command(lab, "h1", "doctor", "--all", "-q")
        assert code == 1
        assert "host h2: 1 failed" in text
        assert "does not answer" in text


async def test_the_matrix_is_drawn_and_the_command_fails_with_what_fails(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        code, text = await command(lab, "h1", "connectivity", "test")
        assert code == 0, text
        assert text.splitlines()[0].split() == ["FROM/TO", "h1", "h2"]
        assert text.splitlines()[1].split() == ["h1", "-", "ok"]
        assert "2 of 2 ways between hosts ok" in text
        assert "2 of 2 pairs of endpoints ok" in text

        plant(lab.hosts["h2"].netns, "input", "udp dport 4789 drop")
        code, text = await command(lab, "h1", "connectivity", "test", "--network", "n1")
        assert code == 1
        assert text.splitlines()[1].split() == ["h1", "-", "blocked"]
        assert "fix: kvnet trace n1/c1 n1/c2" in text

        code, text = await command(lab, "h1", "connectivity", "test", "--hosts-only", "-o", "json")
        assert code == 1
        assert json.loads(text)["failures"] == 1

        code, text = await command(lab, "h1", "connectivity", "test", "--host", "h9")
        assert code == 3
        assert "there is no host 'h9'" in text


async def test_an_examination_changes_nothing_on_the_host(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        await examined(lab, "h1")
        before = run(lab.hosts["h1"].netns, _EVERYTHING)

        await examined(lab, "h1")
        await command(lab, "h1", "doctor", "--local")

        assert run(lab.hosts["h1"].netns, _EVERYTHING) == before


_EVERYTHING = (
    "ip -o link; ip -o addr; ip route show table all; bridge fdb; nft -s list ruleset; "
    "cat /proc/sys/net/ipv4/conf/all/* /proc/sys/net/ipv6/conf/all/* 2>/dev/null || true"
)


WITHOUT_RIGHTS = """
import asyncio, ctypes, json, os, sys
if len(sys.argv) == 1:
    for capability in range(41):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-c", os.environ["SCRIPT"], "inside"])
from worker.doctor.examine import examine
from worker.doctor.gather import Subject
print(json.dumps(asyncio.run(examine(Subject(host="x")))))
"""


async def test_without_rights_it_says_what_it_could_not_look_at() -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", WITHOUT_RIGHTS],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "SCRIPT": WITHOUT_RIGHTS, "KVNET_NFT": find_nft()},
    )

    assert done.returncode == 0, done.stderr
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["firewall.rules"]["status"] == "unknown"
    assert "CAP_NET_ADMIN" in checks["kernel.capabilities"]["found"]
    assert checks["settings.forwarding4"]["status"] == "ok", "what everybody may read is judged all the same"
