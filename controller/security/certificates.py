"""The controller's TLS: whether its files can be used, what the sockets speak, and new files without a restart.

Everything is judged before anything listens. New files replace the old ones only if they can be used; until then the
old ones go on. A client may show a certificate or not; one of another CA than `client_ca` ends the handshake. Who may
do what with one is decided elsewhere.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller.security import authority
from controller.security.ca import Authority
from kvnet import tls
from kvnet.errors import CertificateUnusable, Invalid

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all sane
EXPIRES_SOON_S = 14 * 86_400.0
DAY_S = 86_400.0

log = logging.getLogger("kvnet.tls")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`client_ca`: whose client certificates are accepted. `authority`: the directory of a CA that signs for hosts."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    authority: Path | None = None

    @classmethod
    def of(
        cls, certificate: Path | None, key: Path | None, client_ca: Path | None, directory: Path | None
    ) -> TlsSettings | None:
        """None: no TLS.

        Raises:
            Invalid: options that contradict each other.
        """
        if directory is not None:
            if certificate is None and not (directory / authority.CONTROLLER).exists():
                authority.load(directory)
                raise CertificateUnusable(
                    f"the CA in {directory} has issued no certificate for a controller",
                    fix=f"kvnet ca issue controller --ca {directory} --dns NAME --ip ADDRESS",
                )
            certificate = certificate or directory / authority.CONTROLLER
            key = key or directory / authority.CONTROLLER_KEY
            client_ca = client_ca or directory / authority.CA
        if certificate is None and key is None:
            if client_ca is not None:
                raise Invalid("--client-ca is of use only with TLS", fix="give --tls-cert and --tls-key, too")
            return None
        if certificate is None or key is None:
            raise Invalid("--tls-cert and --tls-key go together", fix="give both, or --ca DIR for all of it")
        return cls(certificate, key, client_ca, directory)


class _Telling(ssl.SSLObject):
    """Event loops drop a connection whose handshake fails at once, and with it the alert that says why.

    So the failure is told a turn later: as if more had to be read, for which the loop first sends what there is.
    """

    outgoing: ssl.MemoryBIO
    _refusal: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if not self.outgoing.pending:
                raise
            self._refusal = error
            raise ssl.SSLWantReadError from error


class _Current(ssl.SSLContext):
    """What servers keep hold of; each new connection goes by `now`."""

    now: ssl.SSLContext

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any) -> ssl.SSLObject:
        made = self.now.wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _Telling)
        made.outgoing = outgoing
        return made


class Certificates:
    """`context` is for a server on any event loop. `authority`: the CA, if there is one; it may lack its key."""

    def __init__(self, settings: TlsSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self.context = _Current(ssl.PROTOCOL_TLS_SERVER)
        self.authority: Authority | None = None
        self.expires_at = 0.0
        self._seen: tuple[object, ...] = ()
        self._warned_at = 0.0
        self._take()

    def _take(self) -> None:
        """Raises: CertificateUnusable."""
        seen = self._stamps()
        certificate = judged(self._settings, self._now())
        found = None if self._settings.authority is None else authority.load(self._settings.authority)
        self.context.now = server_context(self._settings)
        self.authority, self.expires_at, self._seen = found, certificate.not_valid_after_utc.timestamp(), seen

    def renew(self, *, is_asked: bool = False) -> bool:
        """Take new files, if there are some; what cannot be used is told, and changes nothing."""
        seen = self._stamps()
        if seen == self._seen and not is_asked:
            self._warn()
            return False
        try:
            self._take()
        except CertificateUnusable as error:
            self._seen = seen  # told once
            log.error("certificate-unusable", extra={"facts": {"detail": f"{error.detail}; the old one goes on"}})
            return False
        until = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="seconds")
        log.info("certificate-renewed", extra={"facts": {"detail": f"valid until {until}"}})
        return True

    def signer(self) -> Callable[[str, str], str] | None:
        """Signs hosts' requests; None where the CA's key is not."""
        found = self.authority
        if found is None or found.key is None:
            return None
        return lambda request, host: found.sign_host(request, host, self._now()).certificate

    @property
    def expiring(self) -> str:
        """That the certificate ends soon, in words; "" if it does not."""
        left_s = self.expires_at - self._now()
        if left_s >= EXPIRES_SOON_S:
            return ""
        when = "has expired" if left_s <= 0 else f"expires in {left_s / DAY_S:.1f} days"
        return f"the controller's certificate {self._settings.certificate} {when}"

    def _warn(self) -> None:
        now, detail = self._now(), self.expiring
        if detail and now - self._warned_at >= DAY_S:
            self._warned_at = now
            log.warning("certificate-expires", extra={"facts": {"detail": f"{detail}: put a new one there"}})

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in _files(self._settings))


def _files(settings: TlsSettings) -> list[Path]:
    files = [settings.certificate, settings.key]
    if settings.client_ca is not None:
        files.append(settings.client_ca)
    if settings.authority is not None:
        files += [settings.authority / authority.CA, settings.authority / authority.CA_KEY]
    return files


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def judged(settings: TlsSettings, now: float) -> x509.Certificate:
    """The server's certificate, if it is good for one now.

    Raises:
        CertificateUnusable
    """
    path = settings.certificate
    tls.require_readable(str(path), "the certificate")
    found = authority.read_certificate(path)
    moment = datetime.fromtimestamp(now, UTC)
    if found.not_valid_after_utc <= moment:
        raise CertificateUnusable(
            f"the certificate in {path} expired at {found.not_valid_after_utc.isoformat()}",
            fix="put a new one there ('kvnet ca issue controller' makes one), or set this machine's clock",
        )
    if found.not_valid_before_utc > moment:
        raise CertificateUnusable(
            f"the certificate in {path} is not valid before {found.not_valid_before_utc.isoformat()}",
            fix="set this machine's clock, or issue another one",
        )
    try:
        uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return found
    except ValueError as error:
        raise CertificateUnusable(
            f"the certificate in {path} is damaged: {error}", fix="put another one there"
        ) from error
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
        raise CertificateUnusable(f"the certificate in {path} is not one for servers", fix="name a server's")
    return found


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Raises: CertificateUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Telling
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # A resumed session would not look at the client's certificate again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    tls.load_pair(context, str(settings.certificate), str(settings.key))
    if settings.client_ca is not None:
        tls.require_readable(str(settings.client_ca), "the CA of clients")
        try:
            context.load_verify_locations(cafile=str(settings.client_ca))
        except (ssl.SSLError, OSError) as error:
            detail = f"{settings.client_ca} holds no certificate of a CA"
            raise CertificateUnusable(detail, fix="a file in PEM, as 'kvnet ca show' prints it") from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
