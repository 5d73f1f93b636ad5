"""`kvnet-cni`: the CNI plugin that container runtimes start, for networks of kvnet.

Carries the call to the worker, which does what it asks for and decides what is wrong with it. Here is answered only
what needs no worker: what is not a call at all, the versions, and that the worker is away.
"""

from __future__ import annotations

import os

from kvnet.shims import relay

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")
BAD_ENVIRONMENT, UNREADABLE, TRY_AGAIN, UNAVAILABLE = 4, 6, 11, 50
START = "start it ('systemctl start kvnet-worker'), or name its socket: \"socket\" in the configuration, KVNET_SOCKET"


def main() -> int:
    command = os.environ.get("CNI_COMMAND", "")
    try:
        text = relay.read_question()
        config = relay.object_of(text) if text.strip() else {}
    except ValueError as error:
        return _fail(None, UNREADABLE, f"the configuration on standard input cannot be read: {error}")
    version = config.get("cniVersion")
    if not command:
        return _fail(version, BAD_ENVIRONMENT, "CNI_COMMAND is missing", "this is a CNI plugin: runtimes start it")
    if command == "VERSION":
        relay.say({"cniVersion": version or VERSIONS[-1], "supportedVersions": list(VERSIONS)})
        return 0
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    away = UNAVAILABLE if command == "STATUS" else TRY_AGAIN
    try:
        path = relay.socket_path(config.get("socket"))
        question = {"op": "cni", "env": environment, "config": config, "kept": relay.kept()}
        answer = relay.ask(path, question)
    except relay.Away as error:
        details = "it may have been done; the same call again tells" if error.is_unknown else START
        return _fail(version, away, str(error), details)
    except relay.Refused as error:
        return _fail(version, away, str(error))
    except ValueError as error:
        return _fail(version, UNREADABLE, f"the configuration is too large: {error}")
    relay.say(answer.get("output"))
    return 1 if answer.get("failed") else 0


def _fail(version: object, code: int, message: str, details: str = "") -> int:
    told = version if isinstance(version, str) and version else VERSIONS[-1]
    relay.say({"cniVersion": told, "code": code, "msg": message, "details": details})
    return 1
