"""A small CA of one's own: a key, a certificate, and what it signs for controllers and hosts.

ECDSA P-256. It signs no other CA (path length 0), and what it signs is good for one use: a server's, or a client's.
Whose request it was says nothing about the name in it: subject and use are set here. Times come in as arguments.
Files: `controller.security.authority`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvnet.errors import CertificateUnusable, Invalid

CA_DAYS = 3650
CONTROLLER_DAYS = 397
HOST_DAYS = 90
SKEW = timedelta(minutes=5)  # clocks of a site are not all the same
LONGEST_REQUEST = 8192
LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 8192
CURVES = (ec.SECP256R1, ec.SECP384R1)
LOCAL_NAMES = ("localhost",)
LOCAL_ADDRESSES = ("127.0.0.1", "::1")
HOST_NAME = "kvnet-host:"
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM. `key` is "" where the other side has made it and keeps it."""

    certificate: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """`key`: None where only its certificate is at hand: then it can be trusted, but signs nothing."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None

    @classmethod
    def new(cls, now: float, *, days: int = CA_DAYS, permitted: Sequence[str] = ()) -> Self:
        """`permitted`: the only domains and networks (beside this machine's own) that servers may have names of."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"kvnet CA {secrets.token_hex(4)}")
        builder = _builder(name, name, key.public_key(), now, days).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_use(signs_certificates=True), critical=True)
        if permitted:
            builder = builder.add_extension(name_constraints(permitted), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def pem(self) -> str:
        return _pem(self.certificate)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def issue_controller(
        self,
        names: Iterable[str],
        addresses: Iterable[str],
        now: float,
        *,
        days: int = CONTROLLER_DAYS,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Issued:
        """For a server of these names, and of this machine's own. `key`: the one it has already."""
        names = sorted({*names, *LOCAL_NAMES})
        found = sorted({ip_address(one) for one in (*addresses, *LOCAL_ADDRESSES)}, key=str)
        alternatives: list[x509.GeneralName] = [_dns(name) for name in names]
        alternatives += [x509.IPAddress(address) for address in found]
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            _name("kvnet controller"), key.public_key(), now, days, ExtendedKeyUsageOID.SERVER_AUTH, alternatives
        )
        return Issued(_pem(certificate) + self.pem, key_pem(key))

    def issue_host(self, host: str, now: float, *, days: int = HOST_DAYS) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(HOST_NAME + host), key.public_key(), now, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        return Issued(_pem(certificate), key_pem(key))

    def sign_host(self, request: str, host: str, now: float, *, days: int = HOST_DAYS) -> Issued:
        """What the request asks for beside its key is not looked at.

        Raises:
            Invalid: it is no request, or its key is too weak.
        """
        key = key_of(request)
        certificate = self._sign(_name(HOST_NAME + host), key, now, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        return Issued(_pem(certificate))

    def _sign(
        self,
        subject: x509.Name,
        key: PublicKey,
        now: float,
        days: int,
        use: x509.ObjectIdentifier,
        alternatives: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        if self.key is None:
            raise CertificateUnusable("the CA's key is not here, so nothing can be signed", fix="say it where it is")
        builder = _builder(subject, self.certificate.subject, key, now, days, self.certificate.not_valid_after_utc)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_use(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def key_of(request: str) -> PublicKey:
    """The key of a certificate signing request, whose holder has signed it.

    Raises:
        Invalid
    """
    wrong = "a certificate signing request in PEM, with a key of ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits"
    if len(request) > LONGEST_REQUEST:
        raise Invalid.field("/certificate_request", f"it has more than {LONGEST_REQUEST} characters", wrong)
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        key, is_signed = parsed.public_key(), parsed.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError) as error:
        raise Invalid.field("/certificate_request", "it cannot be read", wrong) from error
    if not is_signed:
        raise Invalid.field("/certificate_request", "its signature is not that of its key", wrong)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        return key
    raise Invalid.field("/certificate_request", "its key is of a kind or size that is not accepted", wrong)


def name_constraints(permitted: Sequence[str]) -> x509.NameConstraints:
    """Who permits only domains permits no other addresses than this machine's, and the other way round.

    Raises:
        Invalid
    """
    networks: list[IPv4Network | IPv6Network] = []
    domains: list[str] = []
    for one in permitted:
        try:
            networks.append(ip_network(one))
        except ValueError:
            domains.append(one.lstrip("."))
    allowed: list[x509.GeneralName] = [_dns(name) for name in (*domains, *LOCAL_NAMES)]
    allowed += [x509.IPAddress(one) for one in (*networks, *(ip_network(local) for local in LOCAL_ADDRESSES))]
    return x509.NameConstraints(allowed, None)


def beyond(ca: x509.Certificate, names: Iterable[str], addresses: Iterable[str]) -> list[str]:
    """Those that nobody who trusts this CA takes from it.

    Raises:
        Invalid: what is no name, or no address.
    """
    try:
        allowed = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        return []
    domains = [one.value.lower() for one in allowed if isinstance(one, x509.DNSName)]
    ranges = [one.value for one in allowed if isinstance(one.value, IPv4Network | IPv6Network)]
    found = [name for name in names if not _is_below(_dns(name).value.lower().removeprefix("*."), domains)]
    return found + [one for one in addresses if not any(ip_address(one) in network for network in ranges)]


def _is_below(name: str, domains: Iterable[str]) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _dns(name: str) -> x509.DNSName:
    """Raises: Invalid."""
    try:
        text = name if name.isascii() else name.encode("idna").decode()
        labels = text.removeprefix("*.").split(".")
        if not all(label and len(label) < 64 and label.replace("-", "").isalnum() for label in labels):
            raise ValueError(name)
        return x509.DNSName(text)
    except ValueError as error:
        raise Invalid(
            f"{name[:80]!r} is not a DNS name", fix="like kvnet.example.org; addresses go with --ip"
        ) from error


def _name(common: str) -> x509.Name:
    """X.520 has room for 64 characters; nothing is decided by it, whoever needs the whole name has it elsewhere."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: float, days: int, latest: datetime | None = None
) -> x509.CertificateBuilder:
    """Nothing outlives what signed it."""
    moment = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    end = moment + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - SKEW)
        .not_valid_after(min(end, latest) if latest is not None else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _use(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
