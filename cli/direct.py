"""What is done on a store itself, without a controller: for its owner, who needs nobody's leave.

Loads the use cases of the controller, so only commands that are told --store import it.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import time
from typing import Any


async def create_token(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """As POST /v1/tokens. A new store becomes a cluster with it.

    Raises:
        KvnetError
    """
    from pydantic import ValidationError

    from backends.open import open_store
    from controller.api.problems import from_validation
    from controller.api.tokens import TokenIn, rendered
    from controller.cluster import Cluster
    from controller.outcomes import store_errors_told
    from controller.requests import Caller
    from controller.settings import Settings

    try:
        asked = TokenIn.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False, include_input=False)) from None
    caller = Caller(_person(), f"{random.SystemRandom().getrandbits(64):016x}", "cli")
    with store_errors_told():
        async with await open_store(url) as store, Cluster.open(store, Settings(upkeep=False)) as cluster:
            made = await cluster.tokens.create(asked.request(time.time()), caller)
            return {**rendered(made.token, time.time()), "token": str(made.text)}


def _person() -> str:
    try:
        return f"{getpass.getuser()}@{os.uname().nodename}"
    except (KeyError, OSError):
        return "cli"
