"""`kvnet network` and `kvnet endpoint` against a real controller."""

from __future__ import annotations

import pytest
import yaml

from tests.cli.world import World


def test_create_prints_the_id_and_the_network_is_listed(world: World) -> None:
    name = world.fresh()

    created = world.ok("network", "create", name, "--label", "env=dev", "--label", "mine")

    listed = {network["id"]: network for network in world.ok("network", "ls", "-o", "json").data}
    found = listed[created.out.strip()]
    assert created.err == ""
    assert (found["name"], found["driver"], found["labels"]) == (name, "overlay", {"env": "dev", "mine": ""})


def test_dockers_flags_arrive_where_they_belong(world: World) -> None:
    name = world.fresh()

    made = world.ok(
        *("network", "create", "-d", "bridge", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254"),
        *("--ip-range", "10.77.0.128/25", "--aux-address", "printer=10.77.0.9", "--subnet", "fd77::/64"),
        *("--internal", "--mtu", "1400", "-o", "com.example=1", "--output", "json", name),
    ).data  # fmt: skip

    four, six = made["subnets"]
    assert (four["gateway"], four["range"], four["reserved"]) == (
        "10.77.0.254",
        "10.77.0.128/25",
        {"printer": "10.77.0.9"},
    )
    assert (six["cidr"], six["gateway"]) == ("fd77::/64", "fd77::1")
    assert (made["driver"], made["internal"], made["mtu"], made["options"]) == (
        "bridge",
        True,
        1400,
        {"com.example": "1"},
    )


@pytest.mark.parametrize(("flag", "families"), [("--ipv6", 2), ("--no-ipv6", 1)])
def test_the_family_can_be_forced(world: World, flag: str, families: int) -> None:
    made = world.ok("network", "create", world.fresh(), flag, "--output", "json").data

    assert len(made["subnets"]) == families


def test_the_table_has_a_line_per_network_with_its_use_and_hosts(world: World) -> None:
    name = world.network("--no-ipv6")
    world.endpoint(name, "c1", "h1")
    world.endpoint(name, "c2", "h2")

    titles, *rows = world.ok("network", "ls", "--filter", f"name={name}").lines

    assert titles.split("  ")[0] == "NAME"
    assert "USED/SIZE (%)" in titles
    assert len(rows) == 1
    assert rows[0].split()[0] == name
    assert "2/253 (<1%)" in rows[0]
    assert "h1,h2" in rows[0]
    assert rows[0].split()[-2] == "overlay"


def test_wide_adds_columns(world: World) -> None:
    name = world.network("--label", "env=dev")

    titles, row = world.ok("network", "ls", "-o", "wide", "-f", f"name={name}").lines

    for title in ("ID", "GATEWAY", "VNI", "LABELS", "VERSION"):
        assert title in titles.split()
    assert "env=dev" in row


def test_names_and_ids_come_one_a_line(world: World) -> None:
    name = world.fresh()
    network_id = world.ok("network", "create", name).out.strip()

    assert world.ok("network", "ls", "-o", "name", "-f", f"id={network_id[:8]}").lines == [name]
    assert world.ok("network", "ls", "-q", "-f", f"name={name}").lines == [network_id]


def test_yaml_says_the_same_as_json(world: World) -> None:
    name = world.network()
    only = ("--filter", f"name={name}")

    shown = yaml.safe_load(world.ok("network", "ls", "-o", "yaml", *only).out)

    assert shown == world.ok("network", "ls", "-o", "json", *only).data


def test_filters_of_one_key_are_alternatives_and_labels_add_up(world: World) -> None:
    one = world.network("--label", "tier=web", "--label", "zone=a")
    two = world.network("--label", "tier=web", "--label", "zone=b")

    def names(*filters: str) -> set[str]:
        return set(world.ok("network", "ls", "-o", "name", *[w for f in filters for w in ("-f", f)]).lines)

    assert names("label=tier=web", f"name={one}", f"name={two}") == {one, two}
    assert names("label=tier=web", "label=zone=b") == {two}
    assert names("label=tier=web", "driver=bridge") == set()
    assert names("label=zone") >= {one, two}


def test_lists_are_sorted_by_value(world: World) -> None:
    prefix = world.fresh("s")
    for number, subnet in ((2, "10.78.9.0/24"), (10, "10.78.10.0/24"), (1, "10.78.2.0/24")):
        world.ok("network", "create", f"{prefix}-{number}", "--subnet", subnet)
    ls = ("network", "ls", "-o", "name", "-f", f"name={prefix}-")

    assert world.ok(*ls, "--sort-by", "name").lines == [f"{prefix}-1", f"{prefix}-2", f"{prefix}-10"]
    assert world.ok(*ls, "--sort-by", "subnet").lines == [f"{prefix}-1", f"{prefix}-2", f"{prefix}-10"]
    assert world.ok(*ls, "--sort-by", "age").lines == [f"{prefix}-1", f"{prefix}-10", f"{prefix}-2"]


def test_inspect_takes_several_and_tells_what_is_missing(world: World) -> None:
    name = world.network()
    endpoint = world.endpoint(name, "c1")

    outcome = world.run("network", "inspect", name, "nowhere")

    (found,) = outcome.data
    assert outcome.code == 3
    assert "there is no network 'nowhere'" in outcome.err
    assert found["name"] == name
    assert [(a["name"], a["address"], a["host"]) for a in found["attached"]] == [("c1", endpoint["address"], "h1")]


def test_rm_removes_what_it_can_and_names_what_holds_the_rest(world: World) -> None:
    used, unused = world.network(), world.network()
    world.endpoint(used, "c1", "h3")

    outcome = world.run("network", "rm", used, unused, "nowhere")

    assert outcome.code == 4, outcome
    assert outcome.lines == [unused]
    assert "c1" in outcome.err
    assert "h3" in outcome.err
    assert "there is no network 'nowhere'" in outcome.err


def test_rm_with_force_does_not_mind_what_is_gone_already(world: World) -> None:
    assert world.run("network", "rm", "nowhere").code == 3
    assert world.run("network", "rm", "--force", "nowhere").code == 0


def test_rm_of_an_old_version_is_refused(world: World) -> None:
    name = world.network()
    version = world.ok("network", "inspect", name).data[0]["version"]

    assert world.run("network", "rm", name, "--version", str(version + 1000)).code == 4
    assert world.run("network", "rm", name, "--version", str(version)).code == 0


def test_prune_asks_first_and_removes_only_what_is_unused(world: World) -> None:
    used, unused = world.network(), world.network()
    world.endpoint(used, "c1")

    assert unused in world.ok("network", "prune", "--dry-run").lines
    assert world.run("network", "prune").code == 2  # nobody is there to ask
    assert unused in world.ok("network", "prune", "--force").lines

    assert world.run("network", "inspect", unused).code == 3
    assert world.run("network", "inspect", used).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--subnet", "10.1.0.1/24"], 2, "/subnets/0/cidr"),
        (["--subnet", "10.1.0.0/31"], 2, "no room"),
        (["--subnet", "10.79.0.0/24", "--gateway", "10.80.0.1"], 2, "10.80.0.1"),
        (["-d", "transparent"], 2, "subnets"),
        (["-d", "carrier-pigeon"], 2, "carrier-pigeon"),
        (["--mtu", "12"], 2, "/mtu"),
        (["--pool", "nowhere"], 3, "nowhere"),
    ],
)
def test_bad_input_is_refused_with_the_reason(world: World, arguments: list[str], code: int, says: str) -> None:
    name = world.fresh()

    outcome = world.run("network", "create", name, *arguments)

    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert outcome.err.startswith("Error: ")
    assert says in outcome.err
    assert "\nRequest: " in outcome.err
    assert world.run("network", "inspect", name).code == 3


def test_a_taken_name_is_a_conflict(world: World) -> None:
    name = world.network()

    outcome = world.run("network", "create", name)

    assert outcome.code == 4
    assert "Fix: " in outcome.err


def test_with_json_output_the_error_is_the_problem(world: World) -> None:
    outcome = world.run("network", "create", world.network(), "--output", "json")

    assert (outcome.code, outcome.out) == (4, "")
    assert (outcome.problem["code"], outcome.problem["status"]) == ("name-taken", 409)
    assert outcome.problem["instance"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["network", "ls", "--filter", "colour=red"],
        ["network", "ls", "--sort-by", "beauty"],
        ["network", "create"],
        ["network", "create", "x", "--aux-address", "printer"],
        ["network", "create", "x", "--label", "a=1", "--label", "a=2"],
        ["network", "inspect", ".."],
        ["netwrok"],
        ["events", "--since", "-1"],
    ],
)
def test_a_wrong_command_line_is_usage(world: World, arguments: list[str]) -> None:
    assert world.run(*arguments).code == 2


def test_a_misspelt_command_is_put_right(world: World) -> None:
    assert "Did you mean 'network'?" in world.run("netwrok").err


def test_endpoints_are_listed_inspected_and_removed(world: World) -> None:
    name = world.network()
    one, two = world.endpoint(name, "c1", "h1", aliases=["db"]), world.endpoint(name, "c2", "h2")

    assert world.ok("endpoint", "ls", name, "-o", "name").lines == [f"{name}/c1", f"{name}/c2"]
    assert world.ok("endpoint", "ls", "--network", name, "-f", "host=h2", "-q").lines == [two["id"]]
    assert world.ok("endpoint", "ls", "-f", f"address={one['address']}", "-o", "json").data[0]["id"] == one["id"]
    assert "db" in world.ok("endpoint", "ls", name, "-o", "wide").out
    assert [e["id"] for e in world.ok("endpoint", "inspect", name, "c1", two["id"]).data] == [one["id"], two["id"]]
    assert world.ok("endpoint", "rm", name, "c1").lines == ["c1"]
    assert world.run("endpoint", "inspect", name, "c1").code == 3
    assert world.run("endpoint", "ls", "nowhere").code == 3


def test_a_name_that_stands_for_several_endpoints_is_a_conflict(world: World) -> None:
    name = world.network()
    ids = {world.endpoint(name, "twin")["id"] for _ in range(2)}

    outcome = world.run("endpoint", "rm", name, "twin")

    assert outcome.code == 4
    assert all(endpoint_id in outcome.err for endpoint_id in ids)


def test_a_bulk_of_endpoints_is_listed_over_many_pages(world: World) -> None:
    name = world.network("--subnet", "10.81.0.0/22")
    world.ask(lambda client: client.create_endpoints(name, [{"host": "h1", "name": f"e{i}"} for i in range(250)]))

    assert len(world.ok("endpoint", "ls", name, "-q").lines) == 250
    assert "250/1021 (24%)" in world.ok("network", "ls", "-f", f"name={name}").out


def test_what_somebody_typed_cannot_command_the_terminal(world: World) -> None:
    outcome = world.run("network", "inspect", "\x1b]0;owned\x07\u202e")

    assert outcome.code == 3
    assert all(line.isprintable() for line in outcome.err.splitlines())


def test_json_is_plain_ascii(world: World) -> None:
    made = world.ok("network", "create", world.fresh(), "--label", "note=Grüße", "--output", "json")

    assert made.out.isascii()
    assert made.data["labels"] == {"note": "Grüße"}


def test_a_format_given_as_a_drivers_option_makes_no_network(world: World) -> None:
    name = world.fresh()

    done = world.run("network", "create", name, "-o", "json")

    assert done.code == 2
    assert "--output json" in done.err
    assert world.run("network", "inspect", name).code == 3
