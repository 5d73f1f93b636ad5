"""The directory of a CA: `ca.pem`, `ca-key.pem`, `controller.pem`, `controller-key.pem`, `hosts/`.

Keys are for their owner alone, from the first moment on; a CA's key that others may read is refused. A file is replaced
as a whole, so that a controller that looks meanwhile sees the old or the new one. Never prints a key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.security.ca import Authority, Issued, beyond, key_pem
from kvnet.errors import CertificateUnusable, Invalid
from kvnet.rules import shown
from kvnet.tls import is_private

CA, CA_KEY = "ca.pem", "ca-key.pem"
CONTROLLER, CONTROLLER_KEY = "controller.pem", "controller-key.pem"
HOSTS = "hosts"
PRIVATE, PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class Written:
    certificate: Path
    key: Path


def create(directory: Path, now: float, *, days: int, permitted: Sequence[str]) -> Authority:
    """
    Raises:
        CertificateUnusable: there is one already, or it cannot be written.
    """
    if (directory / CA).exists() or (directory / CA_KEY).exists():
        raise CertificateUnusable(
            f"there is a CA in {directory} already",
            fix="use it, or name another directory: what it has signed would not be trusted any more",
        )
    made = Authority.new(now, days=days, permitted=permitted)
    assert made.key is not None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / CA_KEY, key_pem(made.key), PRIVATE)
        _write(directory / CA, made.pem, PUBLIC)
    except OSError as error:
        raise _unwritable(directory, error) from error
    return made


def load(directory: Path) -> Authority:
    """With its key, if that is there.

    Raises:
        CertificateUnusable
    """
    certificate = read_certificate(directory / CA, fix=f"'kvnet ca init {directory}' makes one")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise CertificateUnusable(f"{directory / CA} is not the certificate of a CA", fix="put the CA's there")
    return Authority(certificate, _key(directory / CA_KEY, certificate) if (directory / CA_KEY).exists() else None)


def read_certificate(path: Path, *, fix: str = "name the file of a certificate in PEM") -> x509.Certificate:
    """The first one in the file. Raises: CertificateUnusable."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CertificateUnusable(f"{path} cannot be read: {error.strerror}", fix=fix) from error
    except ValueError as error:
        raise CertificateUnusable(f"{path} holds no certificate in PEM", fix=fix) from error


def _key(path: Path, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    key = _private_key(path)
    if key.public_key() != certificate.public_key():
        raise CertificateUnusable(f"{path} is not the key of {path.with_name(CA)}", fix="put the right one there")
    return key


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Raises: CertificateUnusable: also if others may read it."""
    try:
        if not is_private(path):
            raise CertificateUnusable(f"others may read the key {path}", fix=f"chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise CertificateUnusable(f"{path} cannot be read: {error.strerror}", fix="give this user the file") from error
    except (ValueError, TypeError) as error:
        raise CertificateUnusable(f"{path} holds no key in PEM without a password", fix="put it there") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateUnusable(f"the key in {path} is not one of ECDSA", fix="'kvnet ca init' makes such a CA")
    return key


def issue_controller(
    directory: Path, names: Sequence[str], addresses: Sequence[str], now: float, *, days: int
) -> tuple[Written, x509.Certificate]:
    """Its key stays if it has one, so that only one file changes below a controller that runs.

    Raises:
        CertificateUnusable, Invalid
    """
    authority, places = load(directory), Written(directory / CONTROLLER, directory / CONTROLLER_KEY)
    if not names and not addresses and places.certificate.exists():
        names, addresses = alternatives(read_certificate(places.certificate))
    foreign = beyond(authority.certificate, names, addresses)
    if foreign:
        raise Invalid(
            f"nobody would believe a certificate of this CA for {shown(foreign[0])}: --permit left that out",
            fix="name what it was made for, or make another CA",
        )
    key = _private_key(places.key) if places.key.exists() else None
    issued = authority.issue_controller(names, addresses, now, days=days, key=key)
    _write_both(places, issued)
    return places, read_certificate(places.certificate)


def issue_host(directory: Path, host: str, now: float, *, days: int) -> tuple[Written, x509.Certificate]:
    """Raises: CertificateUnusable."""
    places = Written(directory / HOSTS / f"{host}.pem", directory / HOSTS / f"{host}-key.pem")
    issued = load(directory).issue_host(host, now, days=days)
    _write_both(places, issued)
    return places, read_certificate(places.certificate)


def alternatives(certificate: x509.Certificate) -> tuple[Sequence[str], Sequence[str]]:
    """The names and the addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    return found.get_values_for_type(x509.DNSName), [str(a) for a in found.get_values_for_type(x509.IPAddress)]


def _write_both(places: Written, issued: Issued) -> None:
    try:
        places.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not places.key.exists() or places.key.read_text() != issued.key:
            _write(places.key, issued.key, PRIVATE)
        _write(places.certificate, issued.certificate, PUBLIC)
    except OSError as error:
        raise _unwritable(places.key.parent, error) from error


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)


def _unwritable(directory: Path, error: OSError) -> CertificateUnusable:
    return CertificateUnusable(
        f"the CA's files cannot be written to {directory}: {error.strerror}", fix="name a directory of this user's"
    )
