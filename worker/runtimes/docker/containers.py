"""What Docker tells of a container, as far as names follow from it: how it is called, and on which networks it is.

Keeps no more than that. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kvnet.rules import MAX_ALIASES, MAX_LABEL_VALUE
from kvnet.wire import EndpointPatchBody
from worker.attachments import CONTAINER
from worker.runtimes.fitting import as_name

SHORT_ID = 12
KEPT_LABELS = ("com.docker.compose.project", "com.docker.compose.service")


@dataclass(frozen=True, slots=True)
class Names:
    """Of one endpoint, as an endpoint can have them."""

    name: str
    hostname: str
    aliases: tuple[str, ...]
    labels: Mapping[str, str]

    def body(self) -> EndpointPatchBody:
        return {
            "name": self.name,
            "hostname": self.hostname,
            "aliases": list(self.aliases),
            "labels": dict(self.labels),
        }

    def are_those_of(self, answer: Mapping[str, Any]) -> bool:
        return (
            (answer.get("name"), answer.get("hostname")) == (self.name, self.hostname)
            and tuple(answer.get("aliases") or ()) == self.aliases
            and self.labels.items() <= dict(answer.get("labels") or {}).items()
        )


def names_of(container: Mapping[str, Any], network: str) -> Names:
    """From `GET /containers/{id}/json`; `network` as Docker calls it."""
    config = container.get("Config") or {}
    place = ((container.get("NetworkSettings") or {}).get("Networks") or {}).get(network) or {}
    full, short = str(container.get("Name", "")).lstrip("/"), str(container.get("Id", ""))[:SHORT_ID]
    name, hostname = as_name(full or short), as_name(str(config.get("Hostname") or short))
    given = [as_name(str(alias)) for alias in place.get("Aliases") or ()]
    aliases = [alias for alias in dict.fromkeys([*given, short]) if alias not in (name, hostname)]
    told = config.get("Labels") or {}
    labels = {CONTAINER: short}
    labels |= {key: str(told[key])[:MAX_LABEL_VALUE] for key in KEPT_LABELS if told.get(key)}
    if name != full:
        labels["docker.name"] = full[:MAX_LABEL_VALUE]
    return Names(name, hostname, tuple(aliases[:MAX_ALIASES]), labels)


def places_of(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Its networks' names, and Docker's ids of its endpoints there ("" as long as there are none)."""
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return ((str(name), str((place or {}).get("EndpointID") or "")) for name, place in networks.items())


def essence(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of it names follow from: the whole is tens of kilobytes, and a host may have thousands."""
    config = container.get("Config") or {}
    labels = config.get("Labels") or {}
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "Id": container.get("Id"),
        "Name": container.get("Name"),
        "Config": {
            "Hostname": config.get("Hostname"),
            "Labels": {key: labels[key] for key in KEPT_LABELS if key in labels},
        },
        "NetworkSettings": {
            "Networks": {
                name: {key: (place or {}).get(key) for key in ("Aliases", "EndpointID")}
                for name, place in networks.items()
            }
        },
    }
