"""Each alert, tried by Prometheus' own tool: quiet while all is well, firing when what it is about happens."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.conftest import ROOT

ALERTS = ROOT / "packaging/prometheus/alerts.yml"
DOCS = ROOT / "docs/observability.md"
CONTROLLER = 'instance="c1:7480",job="kvnet-controller"'
WORKER = 'instance="h1:7482",job="kvnet-worker"'
SAMPLES = 150  # minutes

# What a healthy cluster tells, minute by minute.
WELL: dict[str, str] = {
    f"up{{{CONTROLLER}}}": "1x150",
    f"up{{{WORKER}}}": "1x150",
    f'kvnet_host_alive{{host="h1",{CONTROLLER}}}': "1x150",
    f'kvnet_host_lag_seconds{{host="h1",{CONTROLLER}}}': "0x150",
    f"kvnet_mirrors_stale{{{CONTROLLER}}}": "0x150",
    f"kvnet_store_doubted{{{CONTROLLER}}}": "0x150",
    f"kvnet_audit_broken{{{CONTROLLER}}}": "0x150",
    f"kvnet_leader{{{CONTROLLER}}}": "1x150",
    f'kvnet_upkeep_sweeps_total{{outcome="done",{CONTROLLER}}}': "0+12x150",
    f'kvnet_upkeep_sweeps_total{{outcome="failed",{CONTROLLER}}}': "0x150",
    f'kvnet_http_requests_total{{status="200",{CONTROLLER}}}': "0+600x150",
    f'kvnet_http_requests_total{{status="503",{CONTROLLER}}}': "0+1x150",
    f'kvnet_http_request_duration_seconds_bucket{{route="/v1/networks",le="0.1",{CONTROLLER}}}': "0+600x150",
    f'kvnet_http_request_duration_seconds_bucket{{route="/v1/networks",le="10",{CONTROLLER}}}': "0+600x150",
    f'kvnet_http_request_duration_seconds_bucket{{route="/v1/networks",le="+Inf",{CONTROLLER}}}': "0+600x150",
    f'kvnet_store_request_duration_seconds_bucket{{op="commit",le="0.1",{CONTROLLER}}}': "0+600x150",
    f'kvnet_store_request_duration_seconds_bucket{{op="commit",le="5",{CONTROLLER}}}': "0+600x150",
    f'kvnet_store_request_duration_seconds_bucket{{op="commit",le="+Inf",{CONTROLLER}}}': "0+600x150",
    f'kvnet_ipam_addresses{{network="n",state="used",{CONTROLLER}}}': "100x150",
    f'kvnet_ipam_addresses{{network="n",state="free",{CONTROLLER}}}': "153x150",
    f'kvnet_ipam_subnets{{pool="p",state="used",{CONTROLLER}}}': "10x150",
    f'kvnet_ipam_subnets{{pool="p",state="free",{CONTROLLER}}}': "90x150",
    f'kvnet_build_info{{version="1",component="controller",{CONTROLLER}}}': "1x150",
    f'kvnet_build_info{{version="1",component="worker",{WORKER}}}': "1x150",
    f"kvnet_worker_ready{{{WORKER}}}": "1x150",
    f"kvnet_worker_fenced{{{WORKER}}}": "0x150",
    f"kvnet_worker_mirror_stale_seconds{{{WORKER}}}": "0x150",
    f'kvnet_worker_repairs_total{{operation="create_link",{WORKER}}}': "0x150",
    f'kvnet_worker_operations_total{{operation="create_link",result="failed",{WORKER}}}': "0x150",
    f'kvnet_worker_attach_failures_total{{code="network-full",{WORKER}}}': "0x150",
    f'kvnet_worker_attach_duration_seconds_bucket{{runtime="docker",le="0.1",{WORKER}}}': "0+60x150",
    f'kvnet_worker_attach_duration_seconds_bucket{{runtime="docker",le="20",{WORKER}}}': "0+60x150",
    f'kvnet_worker_attach_duration_seconds_bucket{{runtime="docker",le="+Inf",{WORKER}}}': "0+60x150",
    f'kvnet_worker_dns_answers_total{{rcode="NOERROR",source="memory",{WORKER}}}': "0+6000x150",
    f'kvnet_worker_dns_answers_total{{rcode="SERVFAIL",source="others",{WORKER}}}': "0+10x150",
    f'kvnet_worker_docker_calls_total{{call="NetworkDriver.Join",outcome="failed",{WORKER}}}': "0x150",
}

# What happens instead, and after how many minutes the alert is to fire.
ILL: dict[str, tuple[dict[str, str | None], int]] = {
    "KvnetHostDown": ({f'kvnet_host_alive{{host="h1",{CONTROLLER}}}': "1x4 0x146"}, 10),
    "KvnetHostLagging": ({f'kvnet_host_lag_seconds{{host="h1",{CONTROLLER}}}': "0x4 31+60x146"}, 10),
    "KvnetProblem": ({f'kvnet_problems{{code="peer-unreachable",{CONTROLLER}}}': "2x150"}, 10),
    "KvnetWorkerUnreachable": ({f"up{{{WORKER}}}": "1x4 0x146"}, 10),
    "KvnetWorkerNotReady": ({f"kvnet_worker_ready{{{WORKER}}}": "1x4 0x146"}, 10),
    "KvnetWorkerFenced": ({f"kvnet_worker_fenced{{{WORKER}}}": "0x4 1x146"}, 10),
    "KvnetMirrorStale": ({f"kvnet_worker_mirror_stale_seconds{{{WORKER}}}": "0x4 1+60x146"}, 10),
    "KvnetDrift": ({f'kvnet_worker_repairs_total{{operation="create_link",{WORKER}}}': "0+10x150"}, 30),
    "KvnetKernelRefuses": (
        {f'kvnet_worker_operations_total{{operation="create_link",result="failed",{WORKER}}}': "0+1x150"},
        30,
    ),
    "KvnetAttachFails": ({f'kvnet_worker_attach_failures_total{{code="network-full",{WORKER}}}': "0+1x150"}, 20),
    "KvnetAttachSlow": (
        {f'kvnet_worker_attach_duration_seconds_bucket{{runtime="docker",le="0.1",{WORKER}}}': "0+1x150"},
        30,
    ),
    "KvnetDnsFails": (
        {f'kvnet_worker_dns_answers_total{{rcode="SERVFAIL",source="others",{WORKER}}}': "0+1000x150"},
        30,
    ),
    "KvnetDockerCallsFail": (
        {f'kvnet_worker_docker_calls_total{{call="NetworkDriver.Join",outcome="failed",{WORKER}}}': "0+1x150"},
        20,
    ),
    "KvnetNoController": ({f"up{{{CONTROLLER}}}": "1x4 0x146"}, 10),
    "KvnetControllerDown": ({f"up{{{CONTROLLER}}}": "1x4 0x146"}, 10),
    "KvnetStoreUnheard": ({f"kvnet_mirrors_stale{{{CONTROLLER}}}": "0x4 1x146"}, 10),
    "KvnetStoreDoubted": ({f"kvnet_store_doubted{{{CONTROLLER}}}": "0x4 1x146"}, 10),
    "KvnetAuditBroken": ({f"kvnet_audit_broken{{{CONTROLLER}}}": "0x4 1x146"}, 10),
    "KvnetNoLeader": ({f"kvnet_leader{{{CONTROLLER}}}": "1x4 0x146"}, 10),
    "KvnetUpkeepFails": ({f'kvnet_upkeep_sweeps_total{{outcome="failed",{CONTROLLER}}}': "0+1x150"}, 30),
    "KvnetApiFails": ({f'kvnet_http_requests_total{{status="503",{CONTROLLER}}}': "0+60x150"}, 20),
    "KvnetApiSlow": (
        {f'kvnet_http_request_duration_seconds_bucket{{route="/v1/networks",le="0.1",{CONTROLLER}}}': "0+60x150"},
        30,
    ),
    "KvnetStoreSlow": (
        {f'kvnet_store_request_duration_seconds_bucket{{op="commit",le="0.1",{CONTROLLER}}}': "0+60x150"},
        30,
    ),
    "KvnetNetworkFillsUp": (
        {
            f'kvnet_ipam_addresses{{network="n",state="used",{CONTROLLER}}}': "240x150",
            f'kvnet_ipam_addresses{{network="n",state="free",{CONTROLLER}}}': "13x150",
        },
        10,
    ),
    "KvnetPoolFillsUp": (
        {
            f'kvnet_ipam_subnets{{pool="p",state="used",{CONTROLLER}}}': "95x150",
            f'kvnet_ipam_subnets{{pool="p",state="free",{CONTROLLER}}}': "5x150",
        },
        10,
    ),
    "KvnetVersionsDiffer": ({f'kvnet_build_info{{version="2",component="worker",{WORKER}}}': "1x150"}, 90),
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def tried(promtool: Path, tmp_path: Path, series: dict[str, str], expected: list[dict[str, Any]]) -> str:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": expected}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def firing(name: str, minute: int, *, fires: bool) -> dict[str, Any]:
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}


def test_the_rules_are_valid(promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_a_configuration_is_valid(promtool: Path) -> None:
    file = ROOT / "packaging/prometheus/prometheus.yml"
    done = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_fires_while_all_is_well(promtool: Path, tmp_path: Path) -> None:
    expected = [firing(rule["alert"], minute, fires=False) for rule in rules() for minute in (20, 90, 149)]

    assert not tried(promtool, tmp_path, WELL, expected)


@pytest.mark.parametrize("name", sorted(ILL))
def test_it_fires_when_it_should(promtool: Path, tmp_path: Path, name: str) -> None:
    changes, minute = ILL[name]
    series = {key: value for key, value in {**WELL, **changes}.items() if value is not None}

    assert not tried(promtool, tmp_path, series, [firing(name, minute, fires=True)])


def test_an_upgrade_in_progress_is_no_alert_for_an_hour(promtool: Path, tmp_path: Path) -> None:
    changes, _ = ILL["KvnetVersionsDiffer"]
    series = {key: value for key, value in {**WELL, **changes}.items() if value is not None}

    assert not tried(promtool, tmp_path, series, [firing("KvnetVersionsDiffer", 50, fires=False)])


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    documented = re.findall(r"^#### (Kvnet\w+)$", DOCS.read_text(), re.MULTILINE)

    assert sorted(names) == sorted(ILL)
    assert documented == names
    for rule in rules():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["runbook_url"].endswith(f"docs/observability.md#{rule['alert'].lower()}")
