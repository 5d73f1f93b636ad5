"""Every operation of the API has a verb, every verb that changes something is rehearsed, every list has all forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.lists import OUTPUTS
from cli.main import cli

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"

# operation -> the verb that does it (an option after it where the verb alone does something else)
VERBS = {
    "accept_store": "store accept",
    "check_invariants": "check",
    "create_endpoints": "endpoint create",
    "create_hold": "hold create",
    "create_network": "network create",
    "create_pool": "pool create",
    "create_reservation": "ipam reserve",
    "create_token": "token create",
    "delete_endpoint": "endpoint rm",
    "delete_host": "host rm",
    "delete_network": "network rm",
    "delete_pool": "pool rm",
    "delete_reservation": "ipam release",
    "delete_token": "token rm",
    "examine_host": "doctor",
    "export": "audit export",
    "finish_upgrade": "upgrade --finish",
    "get_address": "ipam show",
    "get_authentication": "auth status",
    "get_authority": "host join-token",
    "get_convergence": "network convergence",
    "get_endpoint": "endpoint inspect",
    "get_hold": "hold inspect",
    "get_host": "host inspect",
    "get_network": "network inspect",
    "get_pool": "pool inspect",
    "get_problem": "explain",
    "get_status": "status",
    "get_store_state": "store show",
    "get_subnet": "ipam show",
    "get_token": "token inspect",
    "get_upgrade": "upgrade",
    "get_utilisation": "ipam show",
    "get_version": "version",
    "get_whoami": "whoami",
    "join": "worker join",
    "list_changes": "network describe",
    "list_endpoints": "endpoint ls",
    "list_holds": "hold ls",
    "list_host_ports": "host ports",
    "list_hosts": "host ls",
    "list_network_endpoints": "endpoint ls",
    "list_networks": "network ls",
    "list_pools": "pool ls",
    "list_reservations": "ipam ls",
    "list_tokens": "token ls",
    "name_network": "network name",
    "pause_repairs": "host pause",
    "peer_networks": "network peer",
    "prune_networks": "network prune",
    "release_hold": "hold rm",
    "repair_invariants": "check --repair",
    "resume_repairs": "host resume",
    "rotate_token": "token rotate",
    "set_authentication": "auth require",
    "stream_events": "events --watch",
    "test_connectivity": "connectivity test",
    "trace_path": "trace",
    "unpeer_networks": "network unpeer",
    "update_endpoint": "endpoint update",
    "update_network": "network update",
    "verify_journal": "audit verify",
}
WITHOUT_A_VERB = {
    "healthz": "for probes; `kvnet status` is for people",
    "livez": "for probes; `kvnet status` is for people",
    "readyz": "for probes; `kvnet status --wait` is for people and scripts",
    "list_seals": "`kvnet audit verify` goes through them",
    "log_in": "for the dashboard, whose cookie it makes; `kvnet login` keeps the token itself",
    "log_out": "for the dashboard",
    "metrics": "for Prometheus",
    "renew": "the worker's, for its own certificate",
}
# What changes something, but nothing of the cluster or nothing that would not be undone by saying the opposite.
NOT_REHEARSED = {
    "network name": "a name is all that comes of it",
    "host pause": "ends by itself, and changes nothing in the kernel",
    "host resume": "ends what `host pause` began",
    "token create": "no host does anything, and `token rm` undoes it",
}
CHANGING = frozenset(
    {
        *("accept", "attach", "connect", "create", "detach", "disconnect", "name", "pause", "peer", "prune", "release"),
        *("reserve", "restore", "resume", "rm", "unpeer", "update"),
    }
)
LISTS = ("ls", "ports")


def command(path: str) -> click.Command:
    """Raises: KeyError: there is no such verb."""
    found: click.Command = cli
    for word in path.split():
        if word.startswith("-"):
            names = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
            if word not in names:
                raise KeyError(path)
            continue
        assert isinstance(found, click.Group)
        below = found.get_command(click.Context(found), word)
        if below is None:
            raise KeyError(path)
        found = below
    return found


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


EVERY = dict(leaves(cli))


def test_every_operation_has_a_verb_or_a_reason() -> None:
    document = json.loads(DOCUMENT.read_text())
    operations = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}

    assert operations == VERBS.keys() | WITHOUT_A_VERB.keys()
    for verb in VERBS.values():
        command(verb)


@pytest.mark.parametrize("path", [path for path in EVERY if path.split()[-1] in CHANGING and "profile" not in path])
def test_every_verb_that_changes_the_cluster_can_be_rehearsed(path: str) -> None:
    if path not in NOT_REHEARSED:
        assert any("--dry-run" in parameter.opts for parameter in EVERY[path].params)


@pytest.mark.parametrize(
    "path", [path for path in EVERY if path.split()[-1] in ("ls", "ports") and "profile" not in path]
)
def test_every_list_has_all_forms(path: str) -> None:
    options = {name: parameter for parameter in EVERY[path].params for name in parameter.opts}

    wanted = {"--filter", "--sort-by", "--watch", "--columns", "--no-headers", "-q", "--no-trunc"}
    assert wanted <= options.keys()
    form = options["--output"].type
    assert isinstance(form, click.Choice)
    assert tuple(form.choices) == OUTPUTS


@pytest.mark.parametrize("path", list(EVERY))
def test_every_command_says_what_it_does(path: str) -> None:
    found = EVERY[path]

    assert found.help, path
    for parameter in found.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, (path, parameter.opts)
