"""`kvnet doctor`: examines this host, or others through their workers, and says what to do about each finding.

A worker that runs here examines best, for it knows what the host is for; without one it is done from here, with what
the options tell. The examination itself is in `worker.doctor`, loaded only where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import DEFAULT_CONTROLLER, controller_option, current, output_option, socket_option
from cli.table import render
from kvnet import __version__
from kvnet.errors import KvnetError, WorkerUnreachable

EXAMINATION_S = 25.0
AT_ONCE = 16
GOOD = frozenset({"ok", "skipped"})
# A host that cannot be examined keeps nobody from the others; one that is examined by others just now is no failure.
UNEXAMINED = {"host-silent": "fail", "host-busy": "unknown"}
ORDER = ("fail", "warn", "unknown", "ok", "skipped")
Report = Mapping[str, Any]


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--all", "everybody", is_flag=True, help="Every host, through the controller.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is not well.")
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings, too.")
@click.option("--local", is_flag=True, help="From here, even if a worker runs.")
@click.option("--underlay", metavar="ADDRESS|DEVICE", help="Without a worker: what its underlay would be.")
@click.option("--store", "store_url", envvar="KVNET_STORE", metavar="URL", help="Without a worker: try this store.")
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Without a worker: its directory.")
@output_option
@controller_option
@socket_option
def doctor(
    hosts: Sequence[str],
    everybody: bool,
    quiet: bool,
    strict: bool,
    local: bool,
    underlay: str | None,
    store_url: str | None,
    state_dir: Path | None,
) -> None:
    """Examine this host, or the HOSTs: kernel, settings, underlay, firewalls, clock, store, controller, Docker, worker.

    Needs neither worker nor controller for this host; what cannot be looked at says so. Nothing is changed. Exit code 1
    if something fails.
    """
    import asyncio

    if hosts and everybody:
        raise click.UsageError("name hosts, or give --all")
    if hosts or everybody:
        reports = asyncio.run(_through_controller(hosts))
    else:
        reports = [asyncio.run(_here(local, underlay or "", store_url or "", state_dir))]
    session = current()
    if output.as_data(session):
        whole = [_chosen(one, quiet=quiet) for one in reports]
        output.show_data(whole[0] if len(whole) == 1 and not (hosts or everybody) else whole, session.output)
    else:
        for line in lines(reports, quiet=quiet):
            click.echo(line)
    counts = [one["counts"] for one in reports]
    if any(count["fail"] or (strict and count["warn"]) for count in counts):
        click.get_current_context().exit(FAILURE)


async def _here(local: bool, underlay: str, store_url: str, state_dir: Path | None) -> dict[str, Any]:
    from kvnet.local import WorkerClient

    session = current()
    problem: KvnetError | None = None
    if not local:
        try:
            report = await WorkerClient(session.socket, timeout_s=EXAMINATION_S).ask("doctor", {})
            return _with_own_version(report)
        except KvnetError as error:
            problem = error
    if problem is not None and not isinstance(problem, WorkerUnreachable):
        click.echo(f"the worker cannot examine this host: {safe(problem.detail)}; examined from here", err=True)
    return await _examined(underlay, store_url, state_dir, problem)


async def _examined(
    underlay: str, store_url: str, state_dir: Path | None, problem: KvnetError | None
) -> dict[str, Any]:
    from worker.doctor.examine import examine
    from worker.doctor.gather import Subject

    session = current()
    subject: dict[str, Any] = {
        "host": _own_name(),
        "controller": session.controller,
        "is_controller_named": session.controller != DEFAULT_CONTROLLER,
        "token": session.token,
        "trust": session.trust,
        "state_dir": state_dir,
        "socket": Path(session.socket),
        "worker_is_asked": problem is not None,
        "worker_problem": problem.detail if problem is not None else "",
        "worker_fix": problem.fix if problem is not None else "",
        **_underlay(underlay),
    }
    if not store_url:
        return await examine(Subject(**subject))
    from backends.open import open_store
    from backends.url import shown

    try:
        opened = await open_store(store_url, sweeps=False)
    except KvnetError as error:
        return await examine(Subject(**subject, store_url=shown(store_url), store_problem=error))
    try:
        return await examine(Subject(**subject, store=opened, store_url=shown(store_url)))
    finally:
        await opened.close()


def _underlay(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return {"wanted": text, "address": ip_address(text)}
    except ValueError:
        return {"wanted": text, "device": text.partition("/")[0]}


def _own_name() -> str:
    import os
    import socket

    return os.environ.get("KVNET_HOST") or socket.gethostname()


def _with_own_version(report: dict[str, Any]) -> dict[str, Any]:
    """The worker compared itself with the controller; here comes the command."""
    if report["version"] == __version__:
        return report
    check = {
        "id": "worker.versions",
        "area": "worker",
        "status": "warn",
        "found": f"worker {report['version']}, this command {__version__}",
        "why": "they are tried together with the same version only; during an upgrade they differ for a while",
        "fix": "restart the worker with the new version, or use the command of its version",
    }
    counts = {**report["counts"], "warn": report["counts"]["warn"] + 1}
    return {**report, "checks": [*report["checks"], check], "counts": counts}


async def _through_controller(hosts: Sequence[str]) -> list[dict[str, Any]]:
    import asyncio

    from cli.progress import waiting
    from kvnet.client import Client

    session = current()
    async with Client(session.controller, token=session.token, trust=session.trust) as client:
        names = list(dict.fromkeys(hosts)) or [host["name"] async for host in client.hosts()]
        gate = asyncio.Semaphore(AT_ONCE)
        done = 0
        with waiting("examining hosts") as progress:

            async def one(name: str) -> dict[str, Any]:
                nonlocal done
                async with gate:
                    try:
                        report = _with_own_version(await client.examine_host(name))
                    except KvnetError as error:
                        if error.code not in UNEXAMINED:
                            raise
                        report = _unexamined(name, error)
                done += 1
                progress.step(done, len(names))
                return report

            return list(await asyncio.gather(*map(one, names)))


def _unexamined(name: str, error: KvnetError) -> dict[str, Any]:
    status = UNEXAMINED[error.code]
    check = {
        "id": "worker.running",
        "area": "worker",
        "status": status,
        "found": error.detail,
        "why": "nothing else can be looked at from here",
        "fix": error.fix or f"on {name}: kvnet doctor",
    }
    return {"host": name, "version": "", "checks": [check], "counts": {**dict.fromkeys(ORDER, 0), status: 1}}


def _chosen(report: Report, *, quiet: bool) -> dict[str, Any]:
    checks = [check for check in report["checks"] if not quiet or check["status"] not in GOOD]
    return {**report, "checks": checks}


def lines(reports: Sequence[Report], *, quiet: bool) -> Iterator[str]:
    for place, report in enumerate(reports):
        if place:
            yield ""
        if len(reports) > 1:
            yield f"host {safe(report['host'])}: {_counted(report)}"
        yield from _table(report, quiet=quiet)
        if len(reports) == 1:
            yield f"{safe(report['host'])}: {_counted(report)}"


def _table(report: Report, *, quiet: bool) -> Iterator[str]:
    """Grouped by area; with `quiet` what is worst comes first. What to do stands below its check."""
    checks = list(_chosen(report, quiet=quiet)["checks"])
    if quiet:
        checks.sort(key=lambda check: ORDER.index(check["status"]))
    if not checks:
        return
    rows = [[check["status"], safe(check["id"]), safe(check["found"])] for check in checks]
    titles, *shown = render(["STATUS", "CHECK", "FOUND"], rows)
    yield titles
    for check, line in zip(checks, shown, strict=True):
        yield line
        if check["status"] in GOOD:
            continue
        if check["why"]:
            yield f"  why: {safe(check['why'])}"
        if check["fix"]:
            yield f"  fix: {safe(check['fix'])}"


def _counted(report: Report) -> str:
    counts = report["counts"]
    warnings = "warning" if counts.get("warn") == 1 else "warnings"
    words = {"fail": "failed", "warn": warnings, "unknown": "unknown", "ok": "ok", "skipped": "skipped"}
    told = [f"{counts[status]} {words[status]}" for status in ORDER if counts.get(status)]
    return ", ".join(told) or "nothing was looked at"
