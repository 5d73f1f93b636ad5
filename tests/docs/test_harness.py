"""The harness bites: what differs is found, what may differ is not, and what is typed is what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import BadPage, Block, Page, read
from tests.docs.running import Difference, rewritten
from tests.docs.syntax import command_faults, faults, is_path
from tests.docs.words import Known, begins_with, differs


def page(tmp_path: Path, text: str) -> Page:
    path = tmp_path / "page.md"
    path.write_text(text)
    return read(path)


def console(*lines: str, **attributes: str) -> Block:
    return Block(1, "console", attributes, lines)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("d12afe0b0694", "8cd2be4b144e"),
        ("Address6:   fd35:9d29:2c9b::2", "Address6:   fd08:d5a7:b3c2::2"),
        ("2026-11-23 21:16:49.713       13  network.created", "2026-11-29 09:00:00.001        7  network.created"),
        ("with host h2, for 0s", "with host h2, for 1m5s"),
        ("64 bytes from 10.1.0.2: seq=0 ttl=64 time=0.249 ms", "64 bytes from 10.1.0.2: seq=0 ttl=64 time=1.2 ms"),
        ("no invariant is violated at revision 23", "no invariant is violated at revision 1027"),
        ("set 02:57:d8:3c:de:29 behind port kvx9509b22e283e", "set 02:57:d8:3c:de:30 behind port kvx8cd2be4b144e"),
        ('{"version": 4, "since":"2026-11-29T14:05:13.644Z"}', '{"version": 5, "since":"2026-12-29T14:05:13.644Z"}'),
        ("store etcd://127.0.0.1:16138", "store etcd://127.0.0.1:20001"),
        ("h2 is down since 2026-11-29T18:35:01Z", "h2 is down since 2026-11-29T18:36:02Z"),
        ("a ... c", "a b c"),
    ],
)
def test_what_no_two_runs_have_in_common_is_no_difference(shown: str, printed: str) -> None:
    assert not differs([shown], [printed], Known())


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("10.192.0.2", "10.192.0.3"),
        ("Address6:   fd35:9d29:2c9b::2", "Address6:   fd08:d5a7:b3c2::3"),
        ("fd00:1::/64", "fd00:2::/64"),
        ("2/253 (<1%)", "3/253 (1%)"),
        ("network.created  my-net", "network.created  other"),
        ("a ... c", "a b d"),
        ("my-net", ""),
    ],
)
def test_everything_else_is(shown: str, printed: str) -> None:
    assert differs([shown], [printed], Known())


def test_widths_of_columns_and_ages_do_not_matter() -> None:
    shown = ["NAME     SUBNET          AGE   VERSION", "my-net   10.1.0.0/24     0s    15"]
    printed = ["NAME     SUBNET        AGE    VERSION", "my-net   10.1.0.0/24   10m           9"]
    assert not differs(shown, printed, Known())
    assert differs(shown, [printed[0], printed[1].replace("my-net", "nets")], Known())


def test_several_empty_lines_are_one() -> None:
    assert not differs(["a", "", "b"], ["a", "", "", "b"], Known())
    assert differs(["a", "", "b"], ["a", "b"], Known())


def test_an_elision_stands_for_lines_and_not_for_the_end() -> None:
    assert not differs(["a", "...", "z"], ["a", "b", "c", "z"], Known())
    assert not differs(["a", "...", "z"], ["a", "z"], Known())
    assert differs(["a", "...", "z"], ["a", "b"], Known())
    assert begins_with(["ready"], ["ready", "more"], Known())
    assert not begins_with(["ready"], ["not yet"], Known())


def test_an_id_that_was_shown_can_be_typed_and_stands_for_the_same_ever_after() -> None:
    known = Known()
    assert not differs(["d12afe0b0694"], ["8cd2be4b144e"], known)
    assert known.typed("curl /v1/networks/d12afe0b0694/name") == "curl /v1/networks/8cd2be4b144e/name"
    assert known.typed("ip link show kvbd12afe0b0694") == "ip link show kvb8cd2be4b144e"
    assert known.pasted("bridge kvb8cd2be4b144e") == "bridge kvbd12afe0b0694"
    assert differs(["d12afe0b0694"], ["000000000001"], known)


def test_commands_have_their_prompts_their_lines_and_their_output() -> None:
    block = console("$ a \\", "> b", "out", "", "h1# cat <<EOF", "text", "EOF", "text", "", "h2$ c 'x", "y'")
    commands = block.commands()
    assert [(c.room, c.text, c.output) for c in commands] == [
        ("", "a \\\nb", ["out"]),
        ("h1", "cat <<EOF\ntext\nEOF", ["text"]),
        ("h2", "c 'x\ny'", []),
    ]


def test_output_without_a_command_is_refused() -> None:
    with pytest.raises(BadPage):
        console("out", "$ a").commands()


def test_what_was_printed_takes_the_place_of_what_was_shown(tmp_path: Path) -> None:
    written = page(tmp_path, "# T\n\n```console\n$ a\nold\nold\n$ b\n$ c\nkept\n```\nend\n")
    first, second, _ = written.blocks[0].commands()
    differences = [Difference("p", first, ["new"]), Difference("p", second, ["more", "lines"])]
    expected = "# T\n\n```console\n$ a\nnew\n$ b\nmore\nlines\n$ c\nkept\n```\nend\n"
    assert rewritten(written, differences) == expected


@pytest.mark.parametrize(
    "line",
    [
        "kvnet network create my-net --subnet 10.1.0.0/24 -o wide",
        "kvnet network create|ls|inspect",
        "kvnet controller --store sqlite:///x --listen HOST:PORT",
        "kvnet ipam show [ADDRESS|SUBNET]",
        "kvnet network ls -qo name",
        "kvnet --socket /nowhere.sock network ls",
    ],
)
def test_commands_that_exist_are_no_faults(line: str) -> None:
    assert command_faults(line) == []


@pytest.mark.parametrize("line", ["kvnet netwrk ls", "kvnet network create --colour red", "kvnet network make x"])
def test_commands_and_options_that_do_not_exist_are(line: str) -> None:
    assert command_faults(line)


def test_paths_are_those_of_the_api() -> None:
    assert is_path("/v1/networks/my-net/peers/app")
    assert not is_path("/v1/netwroks")


@pytest.mark.parametrize(
    "text",
    [
        "[a](missing.md)\n",
        "# One\n\n[a](#two)\n",
        "```console\n$ true\n```\n",
        "```\n$ true\n```\n",
        '```json\n{"a": }\n```\n',
        "<!-- world: moon -->\n",
        "`kvnet frobnicate`\n",
    ],
)
def test_faults_of_a_page_are_found(tmp_path: Path, text: str) -> None:
    assert faults(page(tmp_path, text))
