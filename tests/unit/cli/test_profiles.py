"""The file of profiles: what is written is read back, whatever it is."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cli.profiles import FORMS, Profile, Profiles, parsed, written
from cli.session import profiles_path

names = st.from_regex(r"[a-z0-9]([a-z0-9_.-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
profiles = st.builds(
    Profile, controller=texts, token_file=st.just(""), token=texts, socket=texts, output=st.sampled_from(["", *FORMS])
)


@given(st.dictionaries(names, profiles, max_size=4), st.data())
def test_what_is_written_is_read_back(named: dict[str, Profile], data: st.DataObject) -> None:
    current = data.draw(st.sampled_from(["", *named]))

    assert parsed(written(Profiles(current, named)), Path("/x")) == Profiles(current, named)


def test_a_token_file_is_found_from_where_the_profiles_are() -> None:
    found = parsed(
        '[profiles.a]\ntoken_file = "t"\n[profiles.b]\ntoken_file = "/abs/t"', Path("/etc/kvnet/profiles.toml")
    )

    assert found.named["a"].token_file == "/etc/kvnet/t"
    assert found.named["b"].token_file == "/abs/t"


def test_a_relative_configuration_folder_is_ignored() -> None:
    assert profiles_path({"XDG_CONFIG_HOME": "relative", "HOME": "/home/x"}) == "/home/x/.config/kvnet/profiles.toml"
    assert profiles_path({"XDG_CONFIG_HOME": "/conf"}) == "/conf/kvnet/profiles.toml"
