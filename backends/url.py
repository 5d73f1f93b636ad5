"""Store URLs of the servers that a site runs: where they are, who we are there, and how to show a URL to others.

    etcd://[USER[:PASSWORD]@]HOST[:PORT],.../ROOT?ca=FILE&cert=FILE&key=FILE&password_file=FILE
    consul://[:TOKEN@]HOST[:PORT],.../ROOT?token_file=FILE
    zk://[USER[:PASSWORD]@]HOST[:PORT],.../ROOT?auth=digest|sasl

`etcds`, `consuls` and `zks` speak TLS. A secret may stand in the URL, in a file, or in the environment
(`KVNET_STORE_USER`, `KVNET_STORE_PASSWORD`, `KVNET_STORE_TOKEN`, each also with `_FILE` for the secrets). Never lets a
secret into a message, a `repr` or a log; files are read again at every login, so that a secret can be changed in place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from kvnet.errors import Invalid

DEFAULT_ROOT = "kvnet"
KINDS = {"etcd": "etcd", "consul": "consul", "zk": "zookeeper"}
PORTS = {"etcd": 2379, "etcds": 2379, "consul": 8500, "consuls": 8501, "zk": 2181, "zks": 2281}
AUTH = ("digest", "sasl")
FILES = ("ca", "cert", "key")
PARAMETERS = {
    "etcd": {*FILES, "password_file"},
    "consul": {*FILES, "token_file"},
    "zk": {*FILES, "password_file", "auth"},
}
ROOT_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Also where somebody forgot the scheme: what looks like a password is not told.
_USERINFO = re.compile(r"(?:(?<=//)|^)([^/?#@:]*):([^/?#]+)@")


@dataclass(frozen=True, slots=True)
class Secret:
    """A password or token: given, or in a file that is read anew each time."""

    given: str = field(default="", repr=False)
    file: str = ""

    def __bool__(self) -> bool:
        return bool(self.given or self.file)

    def read(self) -> str:
        """
        Raises:
            Invalid: the file cannot be read, or is empty.
        """
        if not self.file:
            return self.given
        try:
            found = Path(self.file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise Invalid(f"the store's secret cannot be read from {self.file}: {reason}") from error
        if not found:
            raise Invalid(f"{self.file} holds no secret: it is empty")
        return found


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. Without `ca`, the system's authorities are believed; `cert` and `key` are ours."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """`kind`: etcd, consul or zookeeper. `root`: without slashes at its ends. `secret`: password or token."""

    kind: str
    endpoints: tuple[Endpoint, ...]
    root: str = DEFAULT_ROOT
    user: str = ""
    secret: Secret = Secret()
    tls: Tls | None = None
    auth: str = "digest"

    def __str__(self) -> str:
        """For people: without any credentials."""
        return f"{self.kind} at {', '.join(map(str, self.endpoints))} (root {self.root})"


def shown(url: str) -> str:
    """The URL without its password or token, whatever else may be wrong with it."""
    return _USERINFO.sub(lambda found: f"{found[1]}:***@", url)


def parse_server_url(url: str, environment: Mapping[str, str] = os.environ) -> ServerUrl:
    """
    Raises:
        Invalid: what is wrong with it, without its secrets.
    """
    scheme, _, rest = url.partition("://")
    base = scheme.removesuffix("s") if scheme not in KINDS else scheme
    if base not in KINDS or scheme not in PORTS:
        raise Invalid(f"{shown(url)!r}: there is no store called {scheme!r}")
    places, _, query = rest.partition("?")
    authority, _, root = places.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    given = _parameters(url, base, query)
    return ServerUrl(
        kind=KINDS[base],
        endpoints=tuple(_endpoint(url, scheme, one) for one in hosts.split(",")),
        root=_root(url, root),
        user=unquote(user) or environment.get("KVNET_STORE_USER", ""),
        secret=_secret(base, unquote(password), given, environment),
        tls=_tls(url, scheme, base, given),
        auth=given.get("auth", "digest"),
    )


def _parameters(url: str, base: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    for name, value in pairs:
        if name not in PARAMETERS[base]:
            raise Invalid(
                f"{shown(url)!r}: unknown parameter {name!r}", fix=f"one of {', '.join(sorted(PARAMETERS[base]))}"
            )
        if not value:
            raise Invalid(f"{shown(url)!r}: {name} has no value")
    if len(given) < len(pairs):
        raise Invalid(f"{shown(url)!r}: a parameter is given twice")
    if given.get("auth", "digest") not in AUTH:
        raise Invalid(f"{shown(url)!r}: auth is {' or '.join(AUTH)}")
    return given


def _endpoint(url: str, scheme: str, text: str) -> Endpoint:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or text.endswith(":") or not text.isprintable() or " " in text:
        raise Invalid(
            f"{shown(url)!r}: {text!r} is not HOST or HOST:PORT",
            fix=f"for example {scheme}://10.0.0.5:{PORTS[scheme]},10.0.0.6:{PORTS[scheme]}/{DEFAULT_ROOT}",
        )
    return Endpoint(host, port or PORTS[scheme])


def _root(url: str, text: str) -> str:
    root = unquote(text).strip("/") or DEFAULT_ROOT
    if not all(ROOT_PART.fullmatch(part) for part in root.split("/")) or len(root) > 128:
        raise Invalid(
            f"{shown(url)!r}: {root!r} cannot be a root",
            fix="letters, digits, '.', '_' and '-' in parts divided by '/'; for example /kvnet or /sites/north",
        )
    return root


def _secret(base: str, in_url: str, given: Mapping[str, str], environment: Mapping[str, str]) -> Secret:
    """The nearest wins: the URL, its file parameter, then the environment."""
    word = "token" if base == "consul" else "password"
    variable = f"KVNET_STORE_{word.upper()}"
    if in_url:
        return Secret(in_url)
    file = given.get(f"{word}_file") or environment.get(f"{variable}_FILE", "")
    if file:
        return Secret(file=file)
    return Secret(environment.get(variable, ""))


def _tls(url: str, scheme: str, base: str, given: Mapping[str, str]) -> Tls | None:
    files = {name: given[name] for name in FILES if name in given}
    if scheme == base:
        if files:
            raise Invalid(f"{shown(url)!r}: certificates without TLS", fix=f"say {base}s:// to speak TLS")
        return None
    if ("cert" in files) != ("key" in files):
        raise Invalid(f"{shown(url)!r}: a certificate needs its key, and a key its certificate")
    for name, file in files.items():
        if not os.access(file, os.R_OK):
            raise Invalid(f"{shown(url)!r}: the file {file} ({name}) cannot be read")
    return Tls(**files)
