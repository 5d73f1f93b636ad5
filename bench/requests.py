"""The few single requests that benches make besides their load."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any


def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    """Raises: urllib.error.HTTPError: it was refused."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def create_network(port: int, name: str, subnets: Sequence[Mapping[str, str]]) -> str:
    """Make the network; the path that its endpoints are created at."""
    return f"/v1/networks/{post(port, '/v1/networks', {'name': name, 'subnets': subnets})['id']}/endpoints"
