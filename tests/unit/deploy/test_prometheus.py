"""What a Prometheus beside the product is started with, and what is said where there is none."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from deploy.local.errors import LocalError
from deploy.local.ports import Port
from deploy.local.prometheus import COMMITTED, TOKEN_FILE, Prometheus, Target, find_prometheus

PORT = Port(9090, "PROMETHEUS_PORT", "Prometheus")


def prepared(folder: Path, *, token: str = "", **targets: list[Target]) -> list[str]:
    return Prometheus(Path("/bin/prometheus"), folder, PORT, folder / "log", targets, token).prepare()


def test_it_has_the_committed_rules_and_this_deployments_targets(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "of-another-version.yml").write_text("groups: []")
    prepared(tmp_path, worker=[Target("127.0.0.1:1", {"worker": "batch"})])
    for name in ("prometheus.yml", *(f"rules/{path.name}" for path in (COMMITTED / "rules").iterdir())):
        assert (tmp_path / name).read_text() == (COMMITTED / name).read_text()
    assert not (tmp_path / "rules" / "of-another-version.yml").exists()
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "targets").iterdir()}
    assert written.pop("worker.yml") == [{"targets": ["127.0.0.1:1"], "labels": {"worker": "batch"}}]
    assert set(written) | {"worker.yml"} == {path.name for path in (COMMITTED / "targets").iterdir()}
    assert not any(written.values())


def test_the_token_is_for_us_alone_and_there_without_one_too(tmp_path: Path) -> None:
    prepared(tmp_path)
    assert (tmp_path / TOKEN_FILE).read_text() == ""
    prepared(tmp_path, token="a-token-of-many-letters")
    assert (tmp_path / TOKEN_FILE).read_text() == "a-token-of-many-letters"
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_it_tells_that_nobody_watches_the_machine(tmp_path: Path) -> None:
    assert "alerts on the machine stay quiet" in prepared(tmp_path)[0]
    assert prepared(tmp_path, node=[Target("127.0.0.1:2")]) == []


def test_a_machine_without_the_program_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalError, match=r"PROMETHEUS_PORT=9090 asks .*apt-get install prometheus.* leave PROMETHEUS_PORT out"):
        find_prometheus(PORT)
