"""What operators and their tools ask: health, metrics, status, version."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backends.memory import MemoryStore
from backends.passing import PassingStore
from backends.store import Entry, Store, Unavailable
from controller.api import answers
from kvnet import __version__
from tests import stores
from tests.api.under_test import Api, eventually, problem_of, running

pytestmark = pytest.mark.anyio


class FailingStore(PassingStore):
    """A store whose reads can be made to fail."""

    failure: Callable[[], Exception] | None = None

    async def get(self, key: str) -> Entry | None:
        if self.failure is not None:
            raise self.failure()
        return await super().get(key)


async def test_a_living_controller_says_so(api: Api) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        assert answers.HealthOut.model_validate((await api.get(path)).json()).status == "ok"
    checks = answers.HealthOut.model_validate((await api.get("/readyz?verbose")).json()).checks
    assert {check.name for check in checks} == {"store", "mirrors", "store-state"}


async def test_a_controller_without_its_store_lives_but_is_not_ready() -> None:
    store = FailingStore(MemoryStore())

    async def opener(_: str) -> Store:
        return store

    async with running("memory://", opener=opener) as api:
        store.failure = lambda: Unavailable("the cable is out")
        answer = await api.get("/readyz")
        assert answer.status_code == 503
        failed = answers.HealthOut.model_validate(answer.json())
        assert [(check.name, check.detail) for check in failed.checks] == [("store", "the cable is out")]
        assert (await api.get("/livez")).status_code == 200
        store.failure = None

        async def is_ready() -> bool:
            return (await api.get("/readyz")).status_code == 200

        await eventually(is_ready)


async def test_a_failure_that_nobody_foresaw_is_a_problem_without_a_stack(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore(MemoryStore())

    async def opener(_: str) -> Store:
        return store

    async with running("memory://", opener=opener) as api:
        store.failure = lambda: ZeroDivisionError("a secret in a stack")
        problem = problem_of(await api.get("/readyz", **{"X-Request-ID": "find-me"}), 500, "internal")
        store.failure = None
    assert "secret" not in str(problem)
    assert "find-me" in [getattr(record, "facts", {}).get("request_id") for record in caplog.records]
    assert "a secret in a stack" in caplog.text


async def test_metrics_can_be_read_and_tell_the_figures(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.95.0.0/24"}])
    await api.endpoint(network["id"])
    text = (await api.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert all(name.startswith(("kvnet_", "process_")) for name in families)
    assert not [name for name in families if name.endswith("_created")]
    assert set(families) >= {
        "kvnet_build_info",
        "kvnet_http_requests",
        "kvnet_http_request_duration_seconds",
        "kvnet_store_request_duration_seconds",
        "kvnet_ipam_addresses",
        "kvnet_ipam_subnets",
        "kvnet_host_last_seen_timestamp_seconds",
        "kvnet_host_lag_revisions",
        "kvnet_sse_streams",
        "kvnet_store_revision",
        "kvnet_networks",
        "kvnet_endpoints",
        "kvnet_hosts",
    }
    used = {
        sample.labels["state"]: sample.value
        for sample in families["kvnet_ipam_addresses"].samples
        if sample.labels["network"] == network["name"]
    }
    assert used == {"used": 1, "free": 252}
    routes = {sample.labels["route"] for sample in families["kvnet_http_requests"].samples}
    assert "/v1/networks/{network}/endpoints" in routes
    assert network["id"] not in text
    await api.delete(f"/v1/networks/{network['id']}")


async def test_status_and_version_tell_what_runs(api: Api, store_name: str) -> None:
    status = answers.StatusOut.model_validate((await api.get("/v1/status")).json())

    assert status.version == __version__
    assert status.store == stores.scheme(store_name)
    assert status.pools >= 2
    assert answers.VersionOut.model_validate((await api.get("/v1/version")).json()).version == __version__


async def test_a_revision_never_goes_back(api: Api) -> None:
    revisions = []
    for _ in range(3):
        await api.network()
        revisions.append((await api.get("/v1/status")).json()["revision"])

    assert revisions == sorted(revisions)
