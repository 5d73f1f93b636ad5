"""What destroys is confirmed: by a person on a terminal, by --yes elsewhere; nobody waits for who cannot answer."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.terminal import Terminal
from tests.cli.world import KVNET, World, running


def test_a_person_is_asked_and_believed(world: World) -> None:
    name = world.network()
    command = [*KVNET, "--controller", world.url, "network", "prune"]
    with Terminal(command) as terminal:
        terminal.until("[y/N]")
        terminal.type("n\n")
        assert terminal.ends() != 0
    assert world.run("network", "inspect", name).code == 0

    with Terminal(command) as terminal:
        terminal.until("without endpoints")
        terminal.until("[y/N]")
        terminal.type("y\n")
        assert terminal.ends() == 0
    assert world.run("network", "inspect", name).code == 3


def test_ctrl_c_is_a_no_at_once(world: World) -> None:
    name = world.network()
    with Terminal([*KVNET, "--controller", world.url, "network", "prune"]) as terminal:
        terminal.until("[y/N]")
        terminal.type("\x03")
        assert terminal.ends() == 130
    assert world.run("network", "inspect", name).code == 0


def test_where_nobody_can_answer_it_takes_yes(world: World) -> None:
    name = world.network()
    refused = world.run("network", "prune", input="y\n")

    assert refused.code == 2
    assert "nobody is there to confirm it" in refused.err
    assert "--yes" in refused.err
    assert name in world.ok("network", "prune", "--yes").lines


def test_a_host_that_carries_endpoints_is_not_forced_out_unasked(world: World) -> None:
    network = world.network()
    world.register("gone", "192.0.2.99", is_alive=True)
    world.endpoint(network, "c1", "gone")
    world.unplant("alive/gone")

    assert world.run("host", "rm", "gone").code == 4
    assert world.run("host", "rm", "--force", "gone").code == 2
    rehearsed = world.ok("host", "rm", "--force", "gone", "--dry-run")
    assert "would remove host gone" in rehearsed.out
    assert world.ok("host", "rm", "--force", "--yes", "gone").lines == ["gone"]
    assert world.run("host", "inspect", "gone").code == 3


def test_a_repair_goes_by_the_report_and_leaves_what_changed_since(tmp_path: Path) -> None:
    with running(f"sqlite://{tmp_path}/kvnet.db", "--no-upkeep") as world:
        for ghost in ("first", "second"):
            world.plant(f"names/{ghost}", b"0123456789ab")
        report = tmp_path / "report.json"
        report.write_text(world.run("check", "-o", "json").out)
        world.plant("names/second", b"ba9876543210")  # it changed since
        world.plant("names/third", b"0123456789ab")  # the report does not know it

        asked = world.run("check", "--repair", "--from-report", str(report))
        told = world.run("check", "--repair", "--from-report", str(report), "--dry-run")
        done = world.run("check", "--repair", "--from-report", str(report), "--yes", "-o", "json").data

        assert asked.code == 2
        assert "would repair" in told.err
        assert [finding["keys"] for finding in done["repaired"]] == [["names/first"]]
        assert [finding["keys"] for finding in done["changed"]] == [["names/second"]]
        left = {key for finding in done["findings"] for key in finding["keys"]}
        assert left == {"names/second", "names/third"}

        broken = tmp_path / "broken.json"
        broken.write_text(json.dumps({"findings": [1]}))
        assert world.run("check", "--repair", "--from-report", str(broken), "--yes").code == 2


def test_a_report_of_a_later_state_repairs_nothing(tmp_path: Path) -> None:
    with running(f"sqlite://{tmp_path}/kvnet.db", "--no-upkeep") as world:
        world.plant("names/ghost", b"0123456789ab")
        report = world.run("check", "-o", "json").data
        file = tmp_path / "report.json"
        file.write_text(json.dumps({**report, "revision": report["revision"] + 1000}))

        outcome = world.run("check", "--repair", "--from-report", str(file), "--yes")

        assert outcome.code == 4
        assert "this is not the store that was looked at" in outcome.err
        assert "names/ghost" in world.run("check").out
