"""The worlds that pages run in: machines of their own (rooms) with what the page's first lines ask for.

    <!-- world: controller -->           one machine, `$`, with a controller; hosts h1, h2 alive, h3 down: in name only
    <!-- world: lab hosts=3 -->          and h1 to h3 with workers; `outside`: a world beyond; `lan`: uplinks `lan0`
    <!-- world: docker hosts=2 -->       and with Docker and kvnet's plugin; images are stand-ins made of busybox
    <!-- world: etcd controls=2 tls -->  and three members, store1 to store3 (`consul`, `zookeeper` likewise)
    <!-- world: compose -->              one machine with Docker and compose, in a clone of this checkout

`bare`: nothing of kvnet runs yet, the page starts it. `controls=2`: control2 as well. Rooms know each other by name. A
room has its own /run, /etc, /var/lib, processes and host name; all of it ends with the page.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from backends.open import open_store
from backends.store import Put
from kvnet import codec, keys
from kvnet.model import Alive, Host, Inventory
from lab.docker_hosts import DockerHost, Programs, open_docker_lab
from lab.lab import Host as LabHost
from tests.docker import programs
from tests.docs.pages import CHECKOUT, BadPage, World
from tests.docs.shells import Shell
from tests.docs.units import Room
from tests.servers.binaries import Kind, class_path, program
from tests.servers.certificates import Certificates
from tests.servers.cluster import Cluster
from tests.servers.places import Place

CONTROL = "control"
MOUNT_SECONDS = 20.0
SOCKET = "c.sock"
HOSTS = {"controller": 0, "lab": 3, "docker": 2}
STORES: dict[str, Kind] = {"etcd": "etcd3.5", "consul": "consul", "zookeeper": "zookeeper"}
PORTS = {
    "etcd": {"client": 2379, "peer": 2380},
    "consul": {"client": 8500, "server": 8300, "serf": 8301},
    "zookeeper": {"client": 2181, "peer": 2888, "election": 3888},
}
TLS_PORTS = {"etcd": 2379, "consul": 8501, "zookeeper": 2281}
KINDS = (*HOSTS, *STORES, "compose")
OPTIONS = {"hosts", "controls", "bare", "outside", "lan", "segments", "tls", "auth", "empty", "members"}
APPLETS = ("ping", "nslookup", "wget", "nc", "httpd", "telnet")
IMAGES = ("alpine", "nginx")
NAMED = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": "192.0.2.3"}
NSENTER = ("--mount", "--uts", "--net", "--pid")


@dataclass(slots=True)
class Stage:
    """A world that is up. `shells` are opened when something is first typed there."""

    folder: Path
    rooms: dict[str, Room]
    environment: Mapping[str, str]
    shells: dict[str, Shell] = field(default_factory=dict)

    def room(self, name: str) -> Room:
        """
        Raises:
            BadPage: the world has no such machine.
        """
        if (name or CONTROL) not in self.rooms:
            raise BadPage(f"there is no machine {name}; this world has {', '.join(self.rooms)}")
        return self.rooms[name or CONTROL]

    def shell(self, name: str) -> Shell:
        room = self.room(name)
        if room.name not in self.shells:
            home = self.folder / f"home-{room.name}"
            home.mkdir(exist_ok=True)
            assert room.host.holder is not None
            mortal = ("setpriv", "--pdeathsig", "KILL", "--")
            enter = (*mortal, "nsenter", f"--target={room.host.holder.pid}", *NSENTER, "--", *mortal)
            self.shells[room.name] = Shell(enter, home, {**self.environment, "HOME": str(home)})
        return self.shells[room.name]

    async def forget(self, name: str) -> None:
        """The machine was switched off; so are its shells."""
        if shell := self.shells.pop(name or CONTROL, None):
            await shell.close()

    async def close(self) -> None:
        for shell in self.shells.values():
            await shell.close()


def require(world: World) -> None:
    """Raises: BadPage, if there is no such world."""
    if world.kind not in KINDS:
        raise BadPage(f"there is no world {world.kind!r}; there are {', '.join(KINDS)}")
    if unknown := set(world.options) - OPTIONS:
        raise BadPage(f"worlds have no option {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPTIONS))}")


@asynccontextmanager
async def open_stage(world: World, folder: Path) -> AsyncIterator[Stage]:
    """
    Raises:
        BadPage: there is no such world.
        Unfit: the kernel does not allow it.
    """
    require(world)
    if world.kind == "compose":
        from tests.compose.page import open_compose

        async with open_compose(folder) as stage:
            yield stage
        return
    tools = _tools(folder / "tools")
    theirs = _programs(world.kind, folder)
    places = [CONTROL, *(f"{CONTROL}{n}" for n in range(2, int(world.options.get("controls", "1")) + 1))]
    if world.kind in STORES:
        places += _members(world)
    options: dict[str, Any] = {"outside": world.has("outside"), "lan": world.has("lan"), "places": places}
    if segments := world.options.get("segments"):
        options["segments"] = dict.fromkeys(segments.split(","), 1)
    hosts = int(world.options.get("hosts", HOSTS.get(world.kind, 2)))
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(open_docker_lab(folder, theirs, hosts=hosts, **options))
        rooms = {name: Room(host) for name, host in lab.hosts.items()}
        for name in places:
            rooms[name] = Room(await _boot_place(lab.lab.places[name], name, folder, theirs))
            stack.push_async_callback(rooms[name].host.power_off)
        addresses = {name: room.host.host.port.underlay for name, room in rooms.items()}
        for room in rooms.values():
            _furnish(room, addresses, world)
            room.revive = partial(_revive, lab, room)
        stage = Stage(folder, rooms, _environment(tools, theirs))
        stack.push_async_callback(stage.close)
        for room in rooms.values():
            await _own_state(stage, room)
        if world.kind in STORES:
            await stack.enter_async_context(_store(world, made(folder / "store"), rooms))
        if not world.has("bare"):
            await _start(world, rooms)
        yield stage


async def _start(world: World, rooms: Mapping[str, Room]) -> None:
    for name, room in rooms.items():
        if name.startswith(CONTROL):
            await room.start("kvnet-controller")
    if world.kind == "controller" and not world.has("empty"):
        await _register(rooms[CONTROL].host.folder / SOCKET)

    async def start_host(room: Room) -> None:
        if world.kind == "docker":
            room.host.listen()
        await room.start("kvnet-worker")
        if world.kind == "docker":
            await room.host.start()
            for image in IMAGES:
                await room.host.docker("tag", "busybox", image)

    async with asyncio.TaskGroup() as group:
        for name, room in rooms.items():
            if name[0] == "h":
                group.create_task(start_host(room))


async def _boot_place(port: Any, name: str, folder: Path, made: Programs) -> DockerHost:
    place = folder / f"{name}-docker"
    place.mkdir()
    (folder / name).mkdir()
    host = DockerHost(LabHost(name, port, folder / name), made, place, f"/kvnet-lab-{os.getpid()}/{name}")
    await host.boot()
    return host


async def _revive(lab: Any, room: Room) -> None:
    await lab.reboot(room.name)


def _furnish(room: Room, addresses: Mapping[str, Any], world: World) -> None:
    """Names of the machines, and what the units read."""
    etc = room.host.folder / "etc"
    (etc / "hosts").unlink(missing_ok=True)
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    lines += [f"{address} controllers" for name, address in addresses.items() if name.startswith(CONTROL)]
    (etc / "hosts").write_text("\n".join(lines) + "\n")
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("nameserver 192.0.2.53\n")  # nobody is there; the machine's own is not the page's
    ours = etc / "kvnet"
    ours.mkdir(exist_ok=True)
    if room.name.startswith(CONTROL):
        socket = f"KVNET_OPTIONS=--insecure --listen-unix {room.host.folder / SOCKET}\n"
        scheme = "zk" if world.kind == "zookeeper" else world.kind
        store = f"KVNET_STORE={scheme}://{','.join(_members(world))}/kvnet\n" if world.kind in STORES else ""
        (ours / "controller.env").write_text(f"KVNET_LISTEN=0.0.0.0:7480\n{store}{socket}")
    (ours / "worker.env").write_text(f"KVNET_CONTROLLER=http://{CONTROL}:7480\nKVNET_UNDERLAY={addresses[room.name]}\n")


async def _own_state(stage: Stage, room: Room) -> None:
    """What is below /var/lib outlives a reboot, and is nobody else's."""
    kept = room.host.folder / "var-lib"
    (kept / "kvnet").mkdir(parents=True, exist_ok=True)
    mounts = f"mount --bind {kept} /var/lib && mount -t tmpfs names /run/netns"
    done = await stage.shell(room.name).run(mounts, MOUNT_SECONDS)
    if done.status:
        raise BadPage(f"{room.name} gets no /var/lib of its own: {done.lines}")


@asynccontextmanager
async def _store(world: World, folder: Path, rooms: Mapping[str, Room]) -> AsyncIterator[Cluster]:
    members = [rooms[name] for name in _members(world)]
    where = [Place(str(room.host.host.port.underlay), room.host.host.netns) for room in members]
    is_tls = world.has("tls")
    cluster = Cluster(STORES[world.kind], folder, members=len(where), places=where, tls=is_tls, auth=world.has("auth"))
    ports = {**PORTS[world.kind], **({"client": TLS_PORTS[world.kind]} if is_tls else {})}
    cluster.site.ports[:] = [dict(ports) for _ in members]
    if is_tls:
        names = [name for room, place in zip(members, where, strict=True) for name in (room.name, place.address)]
        certificates = Certificates(folder / "named", names)
        cluster.certificates = cluster.site.certificates = certificates
        cluster.family.tls = certificates.client_context()
        for room in rooms.values():
            shutil.copy(certificates.ca, room.host.folder / "etc/kvnet/ca.pem")
    async with cluster:
        for member, room in zip(cluster.members, members, strict=True):
            room.members[world.kind] = {"start": member.start, "stop": member.stop, "kill": member.kill}
        if world.options.get("auth") == "":
            await cluster.grant("/kvnet/")
        yield cluster


async def _register(controller: Path) -> None:
    """Hosts in name only, as their workers would register them."""
    async with await open_store(f"unix://{controller}") as store:
        for name, underlay in NAMED.items():
            host = Host(name, ip_address(underlay), 1500)
            writes = [
                Put(keys.host(name), codec.encode(host)),
                Put(keys.inventory(name), codec.encode(Inventory(name, kernel="6.1.0", version="0.1.0"))),
            ]
            if name != "h3":
                writes.append(Put(keys.alive(name), codec.encode(Alive(name, "test", 0.0))))
            await store.commit([], writes)


def _members(world: World) -> list[str]:
    return [f"store{n}" for n in range(1, int(world.options.get("members", "3")) + 1)]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _tools(folder: Path) -> Path:
    """What the machine may not have and pages use: busybox's ping and friends, the stores' own tools."""
    folder.mkdir()
    if programs.BUSYBOX.exists():
        for applet in APPLETS:
            (folder / applet).symlink_to(programs.BUSYBOX)
    java = f"{program('java', 'java')} -Dlog4j.configuration=none -cp '{class_path()}'"
    _wrap(folder / "zkCli.sh", {}, f"{java} org.apache.zookeeper.ZooKeeperMain")
    for kind, tool in (("etcd3.5", "etcdctl"), ("consul", "consul")):
        (folder / tool).symlink_to(program(kind, tool))
    return folder


def _programs(kind: str, folder: Path) -> Programs:
    if kind != "docker":
        return Programs("dockerd", "docker", {}, folder / "none")
    return programs.docker(made(folder / "programs"))


def _environment(tools: Path, theirs: Programs) -> dict[str, str]:
    if theirs.environment:
        libraries = theirs.environment["LD_LIBRARY_PATH"]
        _wrap(tools / "docker", {"LD_LIBRARY_PATH": libraries, "DOCKER_API_VERSION": "1.41"}, theirs.docker)
        compose = {"LD_LIBRARY_PATH": f"{libraries}:{programs.LIBRARIES}", "PYTHONPATH": programs.COMPOSE_PATH}
        _wrap(tools / "docker-compose", compose, *programs.COMPOSE, "--ansi", "never")
    own = Path(sys.executable).parent
    theirs = theirs.environment.get("PATH", os.environ["PATH"])
    return {
        "PATH": f"{own}:{tools}:{theirs}:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "ETCDCTL_API": "3",
        "KVNET_CONTROLLER": f"http://{CONTROL}:7480",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _wrap(path: Path, environment: Mapping[str, str], *command: str) -> None:
    words = " ".join(f"{name}='{value}'" for name, value in environment.items())
    path.write_text(f'#!/bin/sh\n{words} exec {" ".join(command)} "$@"\n')
    path.chmod(0o755)
