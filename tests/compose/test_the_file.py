"""What docker-compose.yml and the Dockerfile promise to whoever runs them, read from the files themselves."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.cluster import FILE, HOSTS, SECURED, STORES
from tests.compose.images import CHECKOUT, IMAGE, all_images
from tests.docker import programs

CAPABILITIES = {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}
# Services without a health check, and why.
UNCHECKED = {"smoke": "it ends by itself, and its exit status tells"}
# What 1.28 and v2 understand alike.
TOP = {"services", "networks", "volumes"}
OF_A_SERVICE = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "hostname",
    "image", "init", "networks", "ports", "profiles", "restart", "security_opt", "stop_grace_period", "sysctls",
    "tmpfs", "user", "volumes",
}  # fmt: skip
ONLY_BUILDKIT = ("# syntax", "--mount=", "--link", "--chmod", "<<", "--network=", "--parents")
CONFIG_SECONDS = 30.0

Service = dict[str, Any]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


@pytest.fixture(scope="module")
def services(composed: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = composed["services"]
    return found


def test_nothing_is_privileged_or_shares_a_namespace_with_the_machine(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert not service.get("privileged"), name
        assert not {"network_mode", "pid", "ipc", "userns_mode", "devices"} & service.keys(), name


def test_kvnet_has_the_capabilities_that_a_host_needs_and_no_other(services: dict[str, Service]) -> None:
    for name, service in services.items():
        if service["image"] == IMAGE:
            assert service["cap_drop"] == ["ALL"], name
            assert set(service.get("cap_add", ())) == (CAPABILITIES if name in HOSTS else set()), name
            assert name in HOSTS or "no-new-privileges:true" in service["security_opt"], name


def test_ports_are_published_on_the_loopback_only(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_every_service_has_a_health_check_or_says_why_not(services: dict[str, Service]) -> None:
    unchecked = {name for name, service in services.items() if not service.get("healthcheck", {}).get("test")}
    assert unchecked == set(UNCHECKED)


def test_no_file_of_the_machine_is_mounted(services: dict[str, Service]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            assert re.match(r"[a-z0-9-]+:/", volume), f"{name}: {volume}"


def test_images_are_pinned_and_can_be_made_without_a_registry(services: dict[str, Service]) -> None:
    foreign = {service["image"] for service in services.values()} - {IMAGE}
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in foreign), foreign
    assert foreign | {"python:3.11-slim"} == {image.name for image in all_images().values()}


def test_each_profile_is_a_store_of_three_members_with_addresses_of_their_own(services: dict[str, Service]) -> None:
    for store in STORES:
        assert {name for name, service in services.items() if service.get("profiles") == [store]} == {
            f"{store}-{number}" for number in (1, 2, 3)
        }
    addresses = [
        service["networks"]["default"]["ipv4_address"] for service in services.values() if "networks" in service
    ]
    assert len(addresses) == len(set(addresses)) == len(services) - 1  # `smoke` takes any


def test_only_what_all_versions_of_compose_know_is_used(composed: dict[str, Any], services: dict[str, Service]) -> None:
    assert {key for key in composed if not key.startswith("x-")} == TOP
    for name, service in services.items():
        assert service.keys() <= OF_A_SERVICE, name
        assert set(service["depends_on"]) <= services.keys() if "depends_on" in service else True
        for needed in service.get("depends_on", ()):
            assert "profiles" not in services[needed], f"{name} needs {needed}, which is not there without its profile"


@pytest.fixture(scope="module")
def secured() -> dict[str, Service]:
    found: dict[str, Service] = yaml.safe_load(SECURED.read_text())["services"]
    return found


def test_what_secures_the_cluster_publishes_nothing_and_takes_one_capability_to_read(
    services: dict[str, Service], secured: dict[str, Service]
) -> None:
    for name, service in secured.items():
        whole = {**services.get(name, {}), **service}
        assert whole["cap_drop"] == ["ALL"], name
        assert set(service.get("cap_add", ())) <= {"DAC_READ_SEARCH"}, name
        assert name in HOSTS or "no-new-privileges:true" in whole["security_opt"], name
        assert "ports" not in service, name
        assert service.keys() <= OF_A_SERVICE, name
        for volume in service["volumes"]:
            assert re.match(r"[a-z0-9-]+:/", volume), f"{name}: {volume}"


def test_a_host_of_the_secured_cluster_has_nothing_of_another_or_of_the_controllers(
    secured: dict[str, Service],
) -> None:
    for name in HOSTS:
        assert secured[name]["volumes"] == [f"{name}-enrol:/enrol"]
        assert set(secured[name]["environment"]) == {"KVNET_CONTROLLER", "KVNET_CA"}


@pytest.mark.parametrize("files", [(FILE,), (FILE, SECURED)])
@pytest.mark.parametrize("store", STORES)
def test_compose_1_29_takes_it(store: str, files: Sequence[Path]) -> None:
    named = [word for file in files for word in ("-f", str(file))]
    asked = subprocess.run(
        [*programs.COMPOSE, *named, "--profile", store, "config", "--quiet"],
        env={"PYTHONPATH": programs.COMPOSE_PATH, "LD_LIBRARY_PATH": programs.LIBRARIES, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=CONFIG_SECONDS,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr


def test_the_dockerfile_needs_no_buildkit_and_ends_as_an_ordinary_user() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    for word in ONLY_BUILDKIT:
        assert not any(word in line for line in lines), word
    assert [line for line in lines if line.startswith("USER")] == ["USER kvnet"]
    assert not any(line.startswith("ARG") for line in lines)


def test_the_build_sees_every_package_and_nothing_else() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    lines = (CHECKOUT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    shown = {line[1:] for line in lines if line.startswith("!")}
    assert shown == packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "packaging/compose"}
