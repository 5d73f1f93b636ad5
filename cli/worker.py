"""`kvnet worker`: options into settings, then the agent. The agent is imported only here, and only when run."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import click

from cli.lazy import LazyGroup
from cli.logs import log_options, otel_option, to_stderr, wants_traces
from cli.session import Session, controller_option, current, socket_option
from cli.values import DURATION
from kvnet.errors import Invalid

if TYPE_CHECKING:
    from kvnet.tls import Trust
    from worker.identity import Identity
    from worker.settings import DockerSettings, Settings

DEFAULT_STATE_DIR = "/var/lib/kvnet"
HTTP_PORT, HTTPS_PORT = 80, 443


@click.group(
    cls=LazyGroup,
    table={
        "join": ("cli.join:join", "Become a host of a cluster, with a join token."),
        "raw-sockets": ("cli.rawsockets:raw_sockets", "Open raw sockets for a worker that may not."),
    },
    invoke_without_command=True,
)
@click.option("--store", default="", metavar="URL", help="Read the store itself; default: through the controller.")
@click.option(
    "--cluster",
    envvar="KVNET_CLUSTER",
    default="",
    metavar="ID",
    help="Believe no store but this cluster's. [KVNET_CLUSTER; the first one seen]",
)
@click.option("--host", envvar="KVNET_HOST", default="", metavar="NAME", help="Of this host. [KVNET_HOST; host name]")
@click.option(
    "--underlay",
    envvar="KVNET_UNDERLAY",
    default="",
    metavar="ADDRESS|DEVICE",
    help="The address that other hosts reach this one at, or the device that has it, like eth0 (eth0/6 for its IPv6 "
    "address). [KVNET_UNDERLAY; the one that reaches the controller]",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE_DIR,
    metavar="DIR",
    help=f"Where the last known state is kept. [{DEFAULT_STATE_DIR}]",
)
@click.option("--ttl", type=DURATION, metavar="TIME", help="How soon others know that this worker is gone. [15s]")
@click.option(
    "--docker",
    type=click.Choice(["auto", "off"]),
    envvar="KVNET_DOCKER",
    default="auto",
    help="Serve this host's Docker as its network and IPAM driver, and follow it where its API can be reached. [auto]",
)
@click.option(
    "--docker-api",
    type=click.Path(path_type=Path),
    default="/run/docker.sock",
    metavar="PATH",
    help="Docker's own socket. [/run/docker.sock]",
)
@click.option(
    "--docker-plugin",
    type=click.Path(path_type=Path),
    default="/run/docker/plugins/kvnet.sock",
    metavar="PATH",
    help="Where Docker finds us; not made if it was passed by systemd. [/run/docker/plugins/kvnet.sock]",
)
@click.option(
    "--docker-networks",
    type=click.Choice(["all", "own"]),
    default="all",
    help="Which networks this host's Docker shows: all of the cluster, or those made through it. [all]",
)
@click.option(
    "--docker-removal",
    type=click.Choice(["everywhere", "here"]),
    default="everywhere",
    help="Whether 'docker network rm' and 'prune' here remove an unused network from the cluster. [everywhere]",
)
@click.option(
    "--docker-keep-ids",
    is_flag=True,
    help="Leave a network that was made here without --subnet as it is: its Docker id stays, and Docker refuses --ip.",
)
@click.option(
    "--dns",
    envvar="KVNET_DNS",
    default="169.254.53.53",
    metavar="ADDRESS|off",
    help="Where workloads ask for names. [KVNET_DNS; 169.254.53.53]",
)
@click.option(
    "--namespace-files",
    type=click.Path(path_type=Path),
    envvar="KVNET_NAMESPACE_FILES",
    default="/etc/netns",
    metavar="PATH",
    help="Where 'ip netns exec' finds what resolv.conf to use. [KVNET_NAMESPACE_FILES; /etc/netns]",
)
@click.option(
    "--metrics",
    envvar="KVNET_METRICS",
    default="",
    metavar="HOST:PORT",
    help="Serve /metrics, /livez and /readyz there, to whoever reaches it. [KVNET_METRICS; off]",
)
@click.option("--accept-store", is_flag=True, help="Accept another cluster, or a store that went back in time.")
@log_options
@otel_option
@controller_option
@socket_option
def worker(store: str, cluster: str, ttl: float | None, **given: Any) -> None:
    """Run this host's worker until Ctrl-C or SIGTERM. What it made in the kernel stays and goes on working.

    A host that has joined with 'kvnet worker join' finds its name, its controller and its credentials in --state-dir.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    import asyncio

    from kvnet.logline import format_for
    from kvnet.spans import tracing
    from worker.log import Log
    from worker.running import run_worker

    to_stderr(given["log_level"], given["log_format"], "worker")
    settings = settings_of(current(), store, cluster, ttl, given)
    log = Log(
        form=format_for(given["log_format"], sys.stderr),
        level=given["log_level"],
        always={"component": "worker", "host": settings.host},
    )
    with tracing(wants_traces(given["otel"]), "worker", **{"host.name": settings.host}) as tracer:
        asyncio.run(run_worker(settings, log=log, tracer=tracer))


def settings_of(session: Session, store: str, cluster: str, ttl: float | None, given: Mapping[str, Any]) -> Settings:
    """What was said, what was learned at the joining, and what follows from both.

    Raises:
        Invalid
    """
    from worker.identity import load
    from worker.settings import Settings, Timing, parse_dns, parse_underlay

    identity = load(given["state_dir"])
    found = known_as(session, identity, given["host"])
    return Settings(
        controller=found.controller,
        host=found.host or socket.gethostname().partition(".")[0],
        underlay=parse_underlay(given["underlay"] or address_towards(found.controller)),
        state_dir=given["state_dir"],
        socket=Path(session.socket),
        store=store,
        cluster=cluster,
        token=found.token,
        trust=found.trust,
        identity=identity,
        accept_store=given["accept_store"],
        timing=Timing() if ttl is None else Timing(ttl_s=ttl),
        docker=_docker(given),
        dns=parse_dns(given["dns"]),
        namespace_files=given["namespace_files"],
        metrics=given["metrics"],
    )


def _docker(given: Mapping[str, Any]) -> DockerSettings:
    from worker.settings import DockerMode, DockerSettings, Following, Removal

    return DockerSettings(
        mode=DockerMode(given["docker"]),
        api=given["docker_api"],
        plugin=given["docker_plugin"],
        networks=Following(given["docker_networks"]),
        removal=Removal(given["docker_removal"]),
        keeps_ids=given["docker_keep_ids"],
    )


class Known(NamedTuple):
    """What a worker is told, or has from joining."""

    controller: str
    host: str
    token: str
    trust: Trust


def known_as(session: Session, identity: Identity | None, host: str) -> Known:
    """What is said beats what was said at the joining; but for the name, which is the credentials'.

    Raises:
        Invalid
    """
    told = session.trust
    if identity is None or "token" in session.given or "token_file" in session.given:
        return Known(session.controller, host, session.token, told)
    if host and host != identity.about.host:
        raise Invalid(
            f"this host has joined as {identity.about.host!r}, not as {host!r}",
            fix="leave --host out, or join anew under that name with 'kvnet worker join --replace'",
        )
    own = identity.trust
    trust = replace(own, ca=told.ca or own.ca)
    if told.certificate:
        trust = replace(trust, certificate=told.certificate, key=told.key)
    controller = session.controller if session.is_controller_said else identity.about.controller
    return Known(controller, identity.about.host, identity.token, trust)


def address_towards(controller: str) -> str:
    """The address of this host that packets to the controller (the first of several) leave with.

    Raises:
        Invalid: the controller is on this host or cannot be resolved, so nothing follows from it.
    """
    try:
        parts = urlsplit(controller.partition(",")[0].strip())
        family, kind, protocol, _, address = socket.getaddrinfo(
            parts.hostname, parts.port or (HTTPS_PORT if parts.scheme == "https" else HTTP_PORT), type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing: only asks the kernel for the route
            found = str(probe.getsockname()[0])
    except (OSError, ValueError):  # a port that is none
        found = ""
    if not found or found == "::1" or found.startswith("127."):
        raise Invalid(
            f"which address other hosts reach this one at does not follow from the controller {controller}",
            fix="give it: --underlay ADDRESS",
        )
    return found
