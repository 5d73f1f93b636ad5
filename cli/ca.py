"""`kvnet ca`: a small CA of one's own, in a directory. Works on files alone, and asks no controller."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.lazy import LazyGroup
from cli.session import current, output_option
from kvnet.errors import Invalid
from kvnet.rules import require_name

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PATH: click.Path = click.Path(path_type=Path)
DAYS = click.IntRange(1, 36500)

ca_option = click.option(
    "--ca",
    "directory",
    type=PATH,
    envvar="KVNET_CA_DIR",
    required=True,
    metavar="DIR",
    help="Where 'kvnet ca init' was told to put it. [KVNET_CA_DIR]",
)


@click.group(
    cls=LazyGroup,
    table={
        "init": ("cli.ca:init", "Make a CA in a directory."),
        "issue": ("cli.ca:issue", "Issue a certificate for a controller or a host."),
        "show": ("cli.ca:show", "What a certificate says; of a CA also its fingerprint."),
    },
)
def ca() -> None:
    """A small CA for controllers and hosts, where the site has none.

    Whoever has its key can pass for a controller with all who trust it: keep the directory where the controllers run,
    and a copy of it in a safe place.
    """


@click.command()
@click.argument("directory", type=PATH)
@click.option("--days", type=DAYS, default=3650, metavar="N", help="How long it is good for. [3650]")
@click.option(
    "--permit",
    multiple=True,
    metavar="DOMAIN|CIDR",
    help="Controllers have names in these domains and addresses in these networks only. [any]",
)
@output_option
def init(directory: Path, days: int, permit: Sequence[str]) -> None:
    """Make a CA in DIRECTORY: a key, which only this user may read, and a certificate.

    \b
    kvnet ca init /etc/kvnet/ca
    kvnet ca issue controller --ca /etc/kvnet/ca --dns kvnet.example.org --ip 10.0.0.5
    kvnet controller --ca /etc/kvnet/ca --listen 10.0.0.5:7480
    """
    from controller.security import authority

    made = authority.create(directory, time.time(), days=days, permitted=permit)
    _show(made.certificate, directory / authority.CA)


@click.group(
    cls=LazyGroup,
    table={
        "controller": ("cli.ca:controller", "For the TLS of controllers, under their names and addresses."),
        "host": ("cli.ca:host", "For a host; those that join get theirs by themselves."),
    },
)
def issue() -> None:
    """Issue a certificate for a controller or a host."""


@click.command()
@ca_option
@click.option("--dns", multiple=True, metavar="NAME", help="A name that it is reached by.")
@click.option("--ip", multiple=True, metavar="ADDRESS", help="An address that it is reached at.")
@click.option("--days", type=DAYS, default=397, metavar="N", help="How long it is good for. [397]")
@output_option
def controller(directory: Path, dns: Sequence[str], ip: Sequence[str], days: int) -> None:
    """Issue the certificate of controllers, also for this machine's own names.

    The same again renews it; without names it keeps those that it has. A controller that runs takes it by itself.
    """
    from controller.security import authority

    _require_addresses(ip)
    places, certificate = authority.issue_controller(directory, dns, ip, time.time(), days=days)
    _show(certificate, places.certificate, places.key)


@click.command()
@click.argument("name")
@ca_option
@click.option("--days", type=DAYS, default=90, metavar="N", help="How long it is good for. [90]")
@output_option
def host(name: str, directory: Path, days: int) -> None:
    """Issue a client certificate for host NAME, with its key.

    It is good for nothing before the host joins with it: 'kvnet worker join --certificate FILE --key FILE'.
    """
    from controller.security import authority

    require_name(name, "/host")
    places, certificate = authority.issue_host(directory, name, time.time(), days=days)
    _show(certificate, places.certificate, places.key)


@click.command()
@click.argument("place", type=PATH, required=False)
@output_option
def show(place: Path | None) -> None:
    """What the certificate in PLACE says: a file, or the directory of a CA. [KVNET_CA_DIR]

    The fingerprint is what a host that joins is told with --ca-fingerprint.
    """
    from controller.security import authority

    place = place or Path(os.environ.get("KVNET_CA_DIR", ""))
    if not str(place) or place == Path():
        raise Invalid("which certificate is to be shown is not said", fix="name its file, or the directory of a CA")
    file = place / authority.CA if place.is_dir() else place
    _show(authority.read_certificate(file), file)


def _require_addresses(texts: Sequence[str]) -> None:
    from ipaddress import ip_address

    for text in texts:
        try:
            ip_address(text)
        except ValueError as error:
            raise Invalid(f"{text!r} is not an IP address", fix="names go with --dns") from error


def _show(certificate: Certificate, file: Path, key: Path | None = None) -> None:
    facts = _facts(certificate)
    if output.as_data(current()):
        places = {"file": str(file)} | ({"key_file": str(key)} if key is not None else {})
        output.show_data({**places, **facts}, current().output)
        return
    shown: list[tuple[str, object]] = [("Certificate", file)]
    if key is not None:
        shown.append(("Key", key))
    words = {"names": "For", "not_after": "Good until", "ca": "Is a CA", "fingerprint": "Fingerprint"}
    for member, title in (("subject", "Subject"), ("issuer", "Issuer"), *words.items()):
        value: Any = facts[member]
        told = ", ".join(value) if isinstance(value, list) else {True: "yes", False: "no"}.get(value, value)
        if value not in ([], None):
            shown.append((title, told))
    output.show_facts(shown)


def _facts(certificate: Certificate) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    from controller.security import authority

    names, addresses = authority.alternatives(certificate)
    try:
        is_ca = certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        is_ca = False
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": [*names, *addresses],
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "ca": is_ca,
        "fingerprint": f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
    }
