"""Prints the OpenAPI document: `python -m controller.api > docs/openapi.json` after the API changed."""

from __future__ import annotations

import json
import sys

from backends.memory import MemoryStore
from controller.api.docs import describe
from controller.app import create_app
from controller.cluster import Cluster


def main() -> None:
    """The cluster is never asked, so one without a life will do."""
    app = create_app(Cluster.__new__(Cluster), MemoryStore())
    json.dump(describe(app), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
