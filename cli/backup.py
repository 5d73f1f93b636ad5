"""`kvnet backup` and `kvnet restore`: a whole cluster into a file, and back into any kind of store."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli import archive, output, progress
from cli.confirming import confirm, yes_option
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import controller_option, current, output_option

if TYPE_CHECKING:
    from backends.store import Store
    from controller.ipam.findings import Finding
    from controller.restore import Restored
    from controller.snapshot import Backup

Command = TypeVar("Command", bound=Callable[..., Any])
MAX_FINDINGS = 20
_WITHOUT_SECRETS = (
    "\nThe backup has no credentials in it. Those of this cluster that were in the store are still good; where there "
    "were none, make the first with 'kvnet token create --store URL', and let the hosts join again."
)


def store_option(command: Command) -> Command:
    return click.option(
        "--store",
        envvar="KVNET_STORE",
        default="",
        metavar="URL",
        help="The store itself, as for 'kvnet controller'. [KVNET_STORE; through the controller]",
    )(command)


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--verify", is_flag=True, help="Do not write FILE: check whether it is whole, and what is in it.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--with-secrets", is_flag=True,
              help="Hashes of tokens, and what the replicas share, too. Needs --store.")  # fmt: skip
@store_option
@controller_option
@output_option
def backup(file: str, *, verify: bool, force: bool, with_secrets: bool, store: str) -> None:
    """Write everything that the store holds into FILE, as of one moment.

    FILE ends with .gz: compressed; "-": stdout. It is for its owner only, and tells damage by itself. Without --store
    it is read through the controller. Sessions, and what hosts have applied, are not in it: see docs/backup.md.
    Credentials are not in it either, unless --with-secrets asks for them: no controller gives them out.
    """
    if with_secrets and not store:
        raise click.UsageError("--with-secrets goes with --store: no controller gives credentials out")
    if verify:
        _verify(file)
        return
    with progress.waiting("backing up"):
        header, size = asyncio.run(_back_up(file, store, force=force, secrets=with_secrets))
    _say({**header, "file": file, "bytes": size}, f"backed up {_described(header)} to {safe(file)} ({size} bytes)")


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--replace", is_flag=True, help="The store may hold a cluster: what is not in FILE is removed.")
@click.option("--other-cluster", is_flag=True, help="With --replace: even if it is another cluster than FILE's.")
@click.option("--dry-run", is_flag=True, help="Only check FILE, and tell what would be written and removed.")
@yes_option
@store_option
@controller_option
@output_option
def restore(file: str, *, replace: bool, other_cluster: bool, dry_run: bool, yes: bool, store: str) -> None:
    """Bring the backup in FILE into a store, of whatever kind.

    FILE is checked first. The store must be empty, but for what hosts say of themselves. Controllers and workers do not
    believe it before all is there; a restore that was cut short goes on when it is repeated. "-": stdin. With --replace
    it asks first.
    """
    from controller.snapshot import unpack
    from kvnet import keys

    if other_cluster and not replace:
        raise click.UsageError("--other-cluster goes with --replace")
    found = unpack(archive.read(file))
    if found.header.secrets and not store:
        raise click.UsageError("FILE has credentials in it: name the store itself with --store")
    _warn(found.findings(time.time()))
    if dry_run:
        would = asyncio.run(_restore(found, store, replace=replace, other=other_cluster, does_it=False))
        told = {"cluster": would.cluster, "written": would.written, "removed": would.removed, "resumed": would.resumed}
        _say(told, f"would write {would.written} keys and remove {would.removed}; nothing was changed")
        return
    if replace:
        confirm("Replace what the store holds? What is not in the backup is removed from it.", yes=yes)
    began = time.monotonic()
    done = asyncio.run(_restore(found, store, replace=replace, other=other_cluster))
    facts = {
        "cluster": done.cluster,
        "revision": done.revision,
        "written": done.written,
        "removed": done.removed,
        "resumed": done.resumed,
        "seconds": round(time.monotonic() - began, 3),
    }
    again = ", going on where an earlier one was cut short" if done.resumed else ""
    _say(
        facts,
        f"restored cluster {done.cluster}: {done.written} keys written, {done.removed} removed"
        f" in {facts['seconds']:.1f} s{again}\n"
        "Controllers and workers that served this cluster go on by themselves; start those that do not run.\n"
        "'kvnet status' shows when all hosts have applied it, 'kvnet check' whether it is consistent."
        + (_WITHOUT_SECRETS if keys.AUTHENTICATION in found.values and not found.header.secrets else ""),
    )


async def _back_up(file: str, url: str, *, force: bool, secrets: bool) -> tuple[Mapping[str, Any], int]:
    import json

    from controller.outcomes import store_errors_told
    from controller.snapshot import pack

    with store_errors_told():
        async with await _opened(url) as store:
            snapshot = await store.list("")
    lines = list(pack(snapshot, _kind(url), time.time(), secrets=secrets))
    # A signal, or a reader that goes away, must find no half-written file; writing is quick and does not wait.
    size = archive.write(file, lines, force=force)
    return json.loads(lines[0]), size


async def _restore(found: Backup, url: str, *, replace: bool, other: bool, does_it: bool = True) -> Restored:
    from controller.outcomes import store_errors_told
    from controller.restore import Restore

    actor = f"{getpass.getuser() if 'USER' in os.environ else os.getuid()}@{socket.gethostname()}"
    with store_errors_told():
        async with await _opened(url) as store:
            with progress.waiting("restoring") as shown:
                restore = Restore(store, found, actor=actor, replace=replace, other=other, progress=shown.step)
                return await (restore.run() if does_it else restore.preview())


async def _opened(url: str) -> Store:
    """The store itself; without its URL, as a controller shows it to whoever this command says that it is."""
    from backends.open import open_store

    if url:
        return await open_store(url, sweeps=False)
    session = current()
    return await open_store(session.controller, token=session.token, trust=session.trust)


def _verify(file: str) -> None:
    from controller.snapshot import unpack

    found = unpack(archive.read(file))
    from kvnet import codec

    findings = found.findings(time.time())
    header = codec.to_json(found.header)
    facts = {**header, "sha256": found.digest, "findings": [f.detail for f in findings]}
    verdict = "is whole" if not findings else f"is whole, and holds a cluster with {len(findings)} findings"
    _say(facts, f"{safe(file)} {verdict}: {_described(header)}")
    _warn(findings)
    if findings:
        click.get_current_context().exit(FAILURE)


def _warn(findings: list[Finding]) -> None:
    """What was wrong in the store comes back with it, and 'kvnet check' finds it there again."""
    for finding in findings[:MAX_FINDINGS]:
        click.echo(f"Warning: {safe(finding.detail)}", err=True)
    if len(findings) > MAX_FINDINGS:
        click.echo(f"Warning: and {len(findings) - MAX_FINDINGS} findings more", err=True)


def _described(header: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in header["counts"].items())
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(header["at"]))
    return f"cluster {header['cluster']} at revision {header['revision']} of {header['store']}, {at}: {counts}"


def _kind(url: str) -> str:
    from backends.url import KINDS

    scheme = url.partition(":")[0]
    return KINDS.get(scheme.removesuffix("s"), scheme) if url else "gateway"


def _say(facts: Mapping[str, Any], text: str) -> None:
    """On stderr as text, so that stdout is free for the backup itself."""
    session = current()
    if output.as_data(session):
        output.show_data(facts, session.output)
    else:
        click.echo(text, err=True)
