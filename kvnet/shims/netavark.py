"""`kvnet-netavark`: the plugin that podman's netavark starts, for networks of kvnet.

Carries the call to the worker, which does what it asks for and decides what is wrong with it. The socket is that of
KVNET_SOCKET, or the network's option `socket`.
"""

from __future__ import annotations

import sys

from kvnet import __version__
from kvnet.shims import relay

API_VERSION = "1.0.0"
COMMANDS = ("create", "setup", "teardown", "info")


def main() -> int:
    command, netns = (*sys.argv[1:3], "", "")[:2]
    if command not in COMMANDS:
        return _fail(f"unknown command {command[:64]!r}: netavark starts this with {', '.join(COMMANDS)}")
    if command == "info":
        relay.say({"version": __version__, "api_version": API_VERSION})
        return 0
    try:
        given = relay.object_of(relay.read_question())
        question: dict[str, object] = {"op": "netavark", "command": command, "netns": netns, "input": given}
        question["kept"] = relay.kept()
        answer = relay.ask(relay.socket_path(_option(given, "socket")), question)
    except ValueError as error:
        return _fail(f"the input cannot be read: {error}")
    except (relay.Away, relay.Refused) as error:
        return _fail(str(error))
    relay.say(answer.get("output"))
    return 1 if answer.get("failed") else 0


def _option(given: dict[str, object], name: str) -> object:
    network = given.get("network", given)
    options = network.get("options") if isinstance(network, dict) else None
    return options.get(name) if isinstance(options, dict) else None


def _fail(message: str) -> int:
    relay.say({"error": message})
    return 1
