"""Whom a client trusts, what it shows of itself, and what a failed handshake means in words.

A CA given is the only one trusted; without one it is the machine's. Host names are always checked. Files are looked at
before anything is sent, so that what is wrong with them is told by name. Never asks anybody, never keeps a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kvnet.errors import CertificateUnusable, Invalid

FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-fA-F]{2}(?::?[0-9a-fA-F]{2}){31})\Z")
LONGEST_PEM = 1 << 20
_EXPIRED, _TOO_EARLY = 10, 9
_UNTRUSTED = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})
_PLAIN = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


@dataclass(frozen=True, slots=True)
class Trust:
    """Files in PEM, "" for none. `ca`: whom to trust. `certificate` and `key`: what is shown to who asks for it."""

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise Invalid("a client certificate and its key go together", fix="give both, or neither")

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 at least.

        Raises:
            CertificateUnusable: a file cannot be read, or is not what it should be.
        """
        if self.ca:
            require_readable(self.ca, "the CA's certificate")
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (ssl.SSLError, OSError) as error:
            raise CertificateUnusable(
                f"{self.ca} holds no certificate of a CA", fix="a file in PEM, as 'kvnet ca show' prints it"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.show(context)
        return context

    def show(self, context: ssl.SSLContext) -> None:
        """Connections from now on bear the certificate as it is in its file now.

        Raises:
            CertificateUnusable
        """
        if self.certificate:
            load_pair(context, self.certificate, self.key)


NO_TRUST = Trust()  # only what the machine trusts, and no certificate


def require_readable(path: str, what: str) -> None:
    """Raises: CertificateUnusable."""
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_PEM + 1)
    except OSError as error:
        raise CertificateUnusable(
            f"{what} cannot be read from {path}: {error.strerror}", fix="name a file that this user may read"
        ) from error
    if len(text) > LONGEST_PEM or b"-----BEGIN " not in text:
        raise CertificateUnusable(f"{path} is not in PEM, as {what} must be", fix="it begins with -----BEGIN ...-----")


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Raises: CertificateUnusable: says which of the two is wrong."""
    require_readable(certificate, "the certificate")
    require_readable(key, "the key")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            detail, fix = f"the key in {key} is not that of the certificate in {certificate}", "name the two as issued"
        else:
            detail = f"{certificate} and {key} are no certificate and key in PEM that could be used ({error.reason})"
            fix = "the certificate first in its file, then those of CAs between; the key without a password"
        raise CertificateUnusable(detail, fix=fix) from error
    except (OSError, ValueError) as error:
        raise CertificateUnusable(f"the key in {key} has a password", fix="take it away: 'openssl pkey -in'") from error


def _no_password() -> str:
    """Else the system's library would ask for it on the terminal."""
    raise ValueError("no password")


def parse_fingerprint(text: str) -> str:
    """The 64 hex digits of a sha256. Raises: Invalid."""
    found = FINGERPRINT.match(text.strip())
    if found is None:
        raise Invalid(f"{text[:80]!r} is not a fingerprint", fix="sha256: and 64 hex digits, as 'kvnet ca show' has it")
    return found[1].replace(":", "").lower()


def fingerprint_of(pem: str) -> str:
    """sha256 of the first certificate in it, as hex. Raises: ValueError."""
    end = "-----END CERTIFICATE-----"
    first = pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


def is_pinned(pem: str, fingerprint: str) -> bool:
    """Whether it is one certificate alone, that one. More in the same text would be trusted unseen."""
    try:
        return pem.count("-----BEGIN") == 1 and hmac.compare_digest(fingerprint_of(pem), fingerprint)
    except ValueError:
        return False


class Mistrust(NamedTuple):
    """Why there is no connection over TLS, and what to do."""

    detail: str
    fix: str


SPEAKS_TLS = Mistrust("it speaks TLS", "write its address with https://")
SPEAKS_PLAIN = Mistrust("it does not speak TLS", "write its address with http://, or start it with --tls-cert or --ca")


def explained(error: ssl.SSLError, host: str) -> Mistrust:
    """What a handshake with `host` failed for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error, host)
    reason = str(getattr(error, "reason", "") or "")
    if reason in _PLAIN:
        return SPEAKS_PLAIN
    if "ALERT" in reason:
        return _of_alert(reason)
    return Mistrust(f"TLS failed: {reason or error}", "look at the log of the controller")


def _of_certificate(error: ssl.SSLCertVerificationError, host: str) -> Mistrust:
    code = error.verify_code
    if code == _EXPIRED:
        return Mistrust("its certificate has expired", "renew it there: 'kvnet ca issue controller'; or set this clock")
    if code == _TOO_EARLY:
        return Mistrust("its certificate is not valid yet", "compare the clock of this machine with that one's")
    if code in _OTHER_NAME:
        return Mistrust(
            f"its certificate is not for {host}",
            f"use a name that it is for, or issue one with --dns or --ip {host}",
        )
    if code in _UNTRUSTED:
        return Mistrust(
            "its certificate is from a CA that is not trusted here",
            "name that CA with --ca-file or KVNET_CA, if it is the right controller",
        )
    return Mistrust(f"its certificate is refused: {error.verify_message}", "look at it: 'kvnet ca show CERTIFICATE'")


def _of_alert(reason: str) -> Mistrust:
    if "UNKNOWN_CA" in reason or "CERTIFICATE_UNKNOWN" in reason:
        return Mistrust(
            "it does not trust the CA of this side's certificate", "show one that is from its --client-ca, or join anew"
        )
    if "EXPIRED" in reason:
        return Mistrust("this side's certificate has expired", "join anew: 'kvnet worker join --replace'")
    if "CERTIFICATE" in reason:
        return Mistrust(f"it refuses this side's certificate ({reason})", "show one that is from its --client-ca")
    return Mistrust(f"it refuses the connection ({reason})", "look at the log of the controller")


def from_environment(environment: dict[str, str] | os._Environ[str]) -> Trust:
    """KVNET_CA, KVNET_CERTIFICATE, KVNET_KEY."""
    return Trust(*(environment.get(f"KVNET_{name}", "") for name in ("CA", "CERTIFICATE", "KEY")))


def is_private(path: Path) -> bool:
    """Nobody but its owner may read or write it."""
    return not path.stat().st_mode & 0o077
