"""The cluster of docker-compose.yml on one store, in the words of who plays with it: up, exec, kill, start, down.

All is done with compose's own commands and over the ports that it publishes. Nothing is left of it afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kvnet.client import Client
from kvnet.errors import KvnetError
from kvnet.http import HttpClient, Lost, NotSent, Target
from kvnet.tls import Trust
from tests.compose.engine import CommandFailed, Engine
from tests.compose.images import CHECKOUT, all_images

FILE = CHECKOUT / "docker-compose.yml"
SECURED = CHECKOUT / "docker-compose.secured.yml"  # over the other
ADMIN = "/var/lib/kvnet/admin-token"
CA = "/var/lib/kvnet/ca/ca.pem"
STORES = ("etcd", "consul", "zookeeper")
ONE_FILE = "sqlite"  # of the secured cluster: its controllers have a volume together
CONTROLLERS = {"controller-1": "http://127.0.0.1:7480", "controller-2": "http://127.0.0.1:7481"}
HOSTS = ("h1", "h2", "h3")
GREETINGS = {"h1": 8081, "h2": 8082, "h3": 8083}
BUILD_SECONDS = 300.0
UP_SECONDS = 120.0
HEALTHY_SECONDS = 60.0
LOOK_AGAIN_S = 0.3
PAGE_SECONDS = 8.0
LOG_LINES = "40"


@dataclass(slots=True)
class Cluster:
    """`clients`: an admin's, of each controller. `is_secured`: with docker-compose.secured.yml."""

    engine: Engine
    store: str
    clients: dict[str, Client] = field(default_factory=dict)
    is_secured: bool = False
    containers: dict[str, str] = field(default_factory=dict)  # id of every service's, once it was seen

    @property
    def members(self) -> Sequence[str]:
        if self.store == ONE_FILE:
            return []
        return [f"{self.store}-{number}" for number in (1, 2, 3)]

    @property
    def services(self) -> Sequence[str]:
        return [*CONTROLLERS, *HOSTS, *self.members]

    async def compose(self, *words: str, seconds: float = UP_SECONDS) -> str:
        """Raises: CommandFailed."""
        files = (FILE, SECURED) if self.is_secured else (FILE,)
        return await compose(self.engine, *words, files=files, seconds=seconds, COMPOSE_PROFILES=self.store)

    async def kvnet(self, *words: str) -> str:
        """The command, by somebody who may do everything."""
        return await self.exec("controller-1" if self.is_secured else "h2", "kvnet", *words)

    async def meet(self, folder: Path) -> None:
        """Make the clients: with what the cluster's operator finds in the volume of the controllers."""
        if not self.is_secured:
            self.clients |= {name: Client(url) for name, url in CONTROLLERS.items()}
            return
        token = await self.exec("controller-1", "cat", ADMIN)
        ca = folder / "ca.pem"
        ca.write_text(await self.exec("controller-1", "cat", CA) + "\n")
        for name, url in CONTROLLERS.items():
            self.clients[name] = Client(url.replace("http:", "https:"), token=token.strip(), trust=Trust(str(ca)))

    async def exec(self, host: str, *words: str) -> str:
        """As `compose exec`, which takes seconds to start where the machine is busy.

        Raises:
            CommandFailed
        """
        return await self.engine.run(self.engine.docker, "exec", self.containers[host], *words)

    async def kill(self, *services: str) -> None:
        """As a crash of the machine that it stands for."""
        await self.compose("kill", *services)

    async def start(self, *services: str) -> None:
        await self.compose("start", *services)
        await self.until_healthy(*services)

    async def until_healthy(self, *services: str) -> None:
        async def are_healthy() -> bool:
            health = await self.health()
            return all(health.get(service) == "healthy" for service in services)

        try:
            async with asyncio.timeout(HEALTHY_SECONDS):
                while not await are_healthy():  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            raise CommandFailed(f"not all of {', '.join(services)} are healthy: {await self.health()}") from None

    async def health(self) -> dict[str, str]:
        """Of every container of the cluster that runs, by service."""
        label = f"label=com.docker.compose.project={project()}"
        words = await self.engine.run(self.engine.docker, "ps", "--quiet", "--filter", label)
        if not words:
            return {}
        found = json.loads(await self.engine.run(self.engine.docker, "inspect", *words.split()))
        services = {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}
        self.containers |= {service: one["Id"] for service, one in services.items()}
        return {service: one["State"].get("Health", {}).get("Status", "") for service, one in services.items()}

    async def page(self, host: str, path: str = "/") -> str:
        """What a workload that has port 8080 of that host says, asked from outside; "" if nobody does."""
        client = HttpClient((Target.parse(f"http://127.0.0.1:{GREETINGS[host]}"),), {})
        try:
            return (await client.request("GET", path, b"", PAGE_SECONDS)).body.decode().strip()
        except (NotSent, Lost):
            return ""
        finally:
            await client.close()

    async def last_words(self) -> str:
        with suppress(CommandFailed):
            return await self.compose("logs", "--no-color", "--tail", LOG_LINES)
        return ""


async def compose(
    engine: Engine, *words: str, files: Sequence[Path] = (FILE,), seconds: float = UP_SECONDS, **environment: str
) -> str:
    """Raises: CommandFailed."""
    named = [word for file in files for word in ("-f", str(file))]
    where = ("--project-directory", str(CHECKOUT), *named, "-p", project())
    return await engine.run(*engine.compose, *where, *words, seconds=seconds, **environment)


def project() -> str:
    """Never that of a cluster that somebody plays with."""
    return f"kvnet-test-{os.getpid()}"


async def build(engine: Engine) -> None:
    """kvnet's image, from this checkout. Every service names it, so one is enough."""
    await engine.need(all_images()["kvnet"])
    before = await _stages(engine)
    await compose(engine, "build", "controller-1", seconds=BUILD_SECONDS)
    engine.made += sorted(await _stages(engine) - before)


async def _stages(engine: Engine) -> set[str]:
    """What builds leave behind of kvnet's image."""
    filters = ("--filter", "dangling=true", "--filter", "label=kvnet.stage=build")
    return set((await engine.run(engine.docker, "images", "--quiet", *filters)).split())


@asynccontextmanager
async def open_cluster(
    engine: Engine, store: str, folder: Path = Path("/nonexistent"), *, is_secured: bool = False
) -> AsyncIterator[Cluster]:
    """Up and healthy; down with all that it made when left. `build` comes before. `folder`: for the CA of a secured
    one."""
    if store != ONE_FILE:
        await engine.need(all_images()[store])
    cluster = Cluster(engine, store, is_secured=is_secured)
    try:
        await cluster.compose("up", "-d", "--no-build")
        await cluster.until_healthy(*cluster.services)
        await cluster.meet(folder)
        yield cluster
    except (KvnetError, AssertionError, TimeoutError) as error:
        error.add_note(await cluster.last_words())
        raise
    finally:
        for client in cluster.clients.values():
            await client.close()
        await asyncio.shield(
            cluster.compose("--profile", store, "--profile", "smoke", "down", "-v", "--remove-orphans", "-t", "2")
        )
