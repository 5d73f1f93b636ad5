"""Certificates for secured stores: an authority, a server's, a client's, and the same from an authority nobody trusts.

Made anew for every cluster that asks for TLS, and worth nothing outside its tests. Never reads or writes a trust store
of the machine.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
CLIENT_NAME = "kvnet.client.test"


@dataclass(frozen=True, slots=True)
class Pair:
    """Files in PEM; `bundle` holds the key and then the chain, as ZooKeeper wants its key store."""

    cert: Path
    key: Path
    bundle: Path


class Certificates:
    """Everything lies in `directory`. The server's certificate is good for all `addresses` and for this machine."""

    def __init__(self, directory: Path, addresses: Sequence[str] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._authority = trustme.CA(organization_name="kvnet tests")
        self._wrong_authority = trustme.CA(organization_name="nobody's authority")
        names = sorted({*LOCAL_NAMES, *addresses})
        self.ca = self._write("ca.pem", self._authority.cert_pem.bytes())
        self.wrong_ca = self._write("wrong-ca.pem", self._wrong_authority.cert_pem.bytes())
        self.server = self._pair("server", self._authority.issue_cert(*names))
        self.client = self.issue_client("client")
        self.wrong_client = self._pair("wrong-client", self._wrong_authority.issue_cert(*_client_names()))

    def issue_client(self, file: str, common_name: str | None = None) -> Pair:
        """One more client; etcd takes a common name for a user's, and its JSON gateway refuses any."""
        return self._pair(file, self._authority.issue_cert(*_client_names(), common_name=common_name))

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts the authority and shows its certificate to whoever asks."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.client.cert, self.client.key)
        return context

    def _pair(self, file: str, issued: trustme.LeafCert) -> Pair:
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the only form ZooKeeper reads
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return Pair(
            cert=self._write(f"{file}.pem", chain),
            key=self._write(f"{file}.key", pem),
            bundle=self._write(f"{file}.bundle.pem", pem + chain),
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


def _client_names() -> tuple[str, ...]:
    return (CLIENT_NAME, *LOCAL_NAMES)
