"""`kvnet controller`: options into settings, then the server. The server is imported only here, and only when run."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.logs import log_options, otel_option, said, to_stderr, wants_traces
from cli.values import DURATION
from kvnet.logline import Format
from kvnet.rules import require_name
from kvnet.spans import tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.security.certificates import TlsSettings
    from controller.security.oidc_settings import OidcSettings

STORES = (
    "sqlite:///PATH, memory://, etcd[s]://HOST:PORT,.../ROOT, consul[s]://HOST:PORT/ROOT, zk[s]://HOST:PORT,.../ROOT"
)
DEFAULT_STORE = "sqlite:///var/lib/kvnet/kvnet.db"
DEFAULT_LISTEN = "127.0.0.1:7480"
PATH: click.Path = click.Path(path_type=Path)


@click.command()
@click.option(
    "--store",
    envvar="KVNET_STORE",
    default=DEFAULT_STORE,
    metavar="URL",
    help=f"{STORES}; docs/stores.md says more. [KVNET_STORE; {DEFAULT_STORE}]",
)
@click.option(
    "--cluster",
    envvar="KVNET_CLUSTER",
    default="",
    metavar="ID",
    help="Refuse any store but this cluster's, an empty one too. [KVNET_CLUSTER]",
)
@click.option("--start-timeout", type=DURATION, metavar="TIME", help="How long a silent store is waited for. [30s]")
@click.option(
    "--listen",
    envvar="KVNET_LISTEN",
    default=DEFAULT_LISTEN,
    metavar="HOST:PORT",
    help=f'Port 0 takes a free one, "" none. [KVNET_LISTEN; {DEFAULT_LISTEN}]',
)
@click.option(
    "--listen-unix", type=click.Path(path_type=Path), metavar="PATH", help="A unix socket too, for its owner only."
)
@click.option("--tls-cert", type=PATH, metavar="FILE", help="Speak TLS with this certificate (and its chain), in PEM.")
@click.option("--tls-key", type=PATH, metavar="FILE", help="Its key, without a password.")
@click.option("--client-ca", type=PATH, metavar="FILE", help="Accept client certificates of this CA.")
@click.option(
    "--ca",
    type=PATH,
    envvar="KVNET_CA_DIR",
    metavar="DIR",
    help="All of it from a directory of 'kvnet ca init'; hosts that join get certificates. [KVNET_CA_DIR]",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let everybody who reaches the address change everything, as long as the cluster has no tokens.",
)
@click.option(
    "--bootstrap-token-file",
    type=PATH,
    envvar="KVNET_BOOTSTRAP_TOKEN_FILE",
    metavar="FILE",
    help="Make the first admin's token, if there is none; its text is read from FILE or written there. "
    "[KVNET_BOOTSTRAP_TOKEN_FILE]",
)
@click.option(
    "--oidc-issuer", default="", metavar="URL", help="Signed tokens (JWT) of this OpenID provider are good too."
)
@click.option("--oidc-audience", default="", metavar="NAME", help="Whom such a token must be meant for.")
@click.option(
    "--oidc-role",
    multiple=True,
    metavar="CLAIM=VALUE:ROLE[@LABEL=VALUE,...]",
    help="Whoever's claim has that value is admin, operator or viewer, in networks with all these labels or in all. "
    "Repeatable; the highest counts. Whom two of the highest give different labels is refused.",
)
@click.option(
    "--oidc-limit",
    multiple=True,
    metavar="NAME=N",
    help="What each of them may: networks, endpoints, rate (a second), streams, both of each controller; "
    "N may be 'any'. [rate=100, streams=32]",
)
@click.option(
    "--oidc-name", default="sub", metavar="CLAIM", help="The claim that names who it is, in the journal. [sub]"
)
@click.option(
    "--name", default="", metavar="NAME", help="Of this replica, as shown in the status; default: the host's."
)
@click.option("--cool-down", type=DURATION, metavar="TIME", help="A released address stays unused so long. [60s]")
@click.option(
    "--dead-host-after", type=DURATION, metavar="TIME", help="Release a missing host's endpoints after this. [24h]"
)
@click.option("--no-upkeep", is_flag=True, help="Leave the upkeep to other replicas.")
@log_options
@otel_option
def controller(
    store: str, listen: str, listen_unix: Path | None, log_level: str, log_format: str, **given: Any
) -> None:
    """Run a controller until Ctrl-C or SIGTERM. Any number of them may serve one store.

    Beyond loopback it listens only where the cluster has tokens ('kvnet token create'), or with --insecure.
    """
    from backends.url import shown
    from controller.server import Listening, ServerSettings, run
    from controller.settings import Settings

    def ready(listening: Listening) -> None:
        places = [listening.url, f"unix://{listening.unix}" if listening.unix else ""]
        ready_line = f"kvnet controller ready: {' '.join(filter(None, places))}, store {shown(store)}"
        click.echo(ready_line if form is Format.HUMAN else said("ready", form, detail=ready_line), err=True)

    if given["name"]:
        require_name(given["name"], "/name")
    form = to_stderr(log_level, log_format)
    chosen = {
        "replica": given["name"] or socket.gethostname(),
        "cluster_id": given["cluster"],
        "start_timeout_s": given["start_timeout"],
        "cool_down_s": given["cool_down"],
        "dead_host_after_s": given["dead_host_after"],
        "upkeep": not given["no_upkeep"],
    }
    tls = _tls(given["tls_cert"], given["tls_key"], given["client_ca"], given["ca"])
    with tracing(wants_traces(given["otel"]), "controller", **{"service.instance.id": chosen["replica"]}) as tracer:
        settings = Settings(tracer=tracer, **{member: value for member, value in chosen.items() if value is not None})
        served = ServerSettings(
            store=store,
            listen=listen,
            listen_unix=listen_unix,
            cluster=settings,
            tls=tls,
            is_insecure=given["insecure"],
            bootstrap_token=given["bootstrap_token_file"],
            oidc=_oidc(given),
        )
        run(served, ready)


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None, ca: Path | None) -> TlsSettings | None:
    """What it needs is loaded only where TLS is asked for."""
    if certificate is key is client_ca is ca is None:
        return None
    from controller.security.certificates import TlsSettings

    return TlsSettings.of(certificate, key, client_ca, ca)


def _oidc(given: Mapping[str, Any]) -> OidcSettings | None:
    """Raises: Invalid."""
    issuer, audience, rules, limits = (given[f"oidc_{name}"] for name in ("issuer", "audience", "role", "limit"))
    if not (issuer or audience or rules or limits):
        return None
    from controller.security.oidc_settings import OidcSettings, parse_limits, parse_rule

    chosen = tuple(parse_rule(text) for text in rules)
    return OidcSettings(issuer, audience, chosen, given["oidc_name"], parse_limits(limits))
