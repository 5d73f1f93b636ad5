"""A backup is read and brought back through a controller that wants to know who asks, over TLS."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.security.secured import kvnet, own_ca, secured


def test_an_admin_backs_up_and_restores_through_a_controller_and_nobody_else_does(tmp_path: Path) -> None:
    ca = own_ca(tmp_path)
    with secured(tmp_path, "--ca", str(ca)) as site:
        asks = {"KVNET_CONTROLLER": site.url, "KVNET_CA": str(ca / "ca.pem")}
        root = {**asks, "KVNET_TOKEN": site.token}
        assert kvnet("network", "create", "my-net", **root).returncode == 0
        assert kvnet("token", "create", "wall", "--role", "viewer", "--out", f"{tmp_path}/wall", **root).returncode == 0
        file = tmp_path / "kvnet.backup"

        for refused in (asks, {**asks, "KVNET_TOKEN": (tmp_path / "wall").read_text().strip()}):
            assert kvnet("backup", str(file), **refused).returncode != 0
            assert not file.exists()
        made = kvnet("backup", str(file), **root)
        assert made.returncode == 0, made.stderr
        assert "1 networks" in made.stderr
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

        assert kvnet("network", "rm", "my-net", **root).returncode == 0
        assert kvnet("restore", str(file), "--replace", "--yes", **asks).returncode != 0
        back = kvnet("restore", str(file), "--replace", "--yes", **root)
        assert back.returncode == 0, back.stderr
        assert kvnet("network", "inspect", "my-net", **root).returncode == 0
