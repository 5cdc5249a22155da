"""The administrator's commands that need no server: making data and training on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Churn


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets.synthetic import write_csv

    path = tmp_path_factory.mktemp("data") / "labelled.csv"
    write_csv(path, 1_500, seed=3, labelled=True)
    return path


def test_training_writes_a_verified_bundle_and_its_metrics(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    from scoring.model import load_bundle

    run = churn("train", str(labelled), "--out", str(tmp_path / "m"), "--version", "t1", "--folds", "2", "--json")
    assert run.code == 0
    bundle = load_bundle(tmp_path / "m", expected_sha256=run.json["sha256"])
    assert bundle.manifest.version == "t1"
    assert run.json["training"]["synthetic"] is True
    assert run.json["metrics"]["n_rows"] == 300
    assert [fold["n_rows"] for fold in run.json["cross_validation"]] == [750, 750]


def test_training_is_told_in_words(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    run = churn("train", str(labelled), "--out", str(tmp_path / "m"))
    assert "labelled.csv (synthetic)" in run.out
    assert "lift at 10 %" in run.out
    assert "1,500 customers" in run.err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Month-to-month", "Weekly", "line "),
        (',"churned"', ',"left"', "no column 'churned'"),
        ("churned", "churned,churned", "churned"),
    ],
)
def test_a_file_that_cannot_be_learnt_from_is_refused(
    churn: Churn, labelled: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(labelled.read_text().replace(old, new, 1))
    run = churn("train", str(bad), "--out", str(tmp_path / "m"))
    assert run.code == 2
    assert says in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "m").exists()


def test_a_label_that_is_neither_1_nor_0_is_placed(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    lines = labelled.read_text().splitlines()
    lines[4] = lines[4][:-1] + "yes"
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    run = churn("train", str(tmp_path / "bad.csv"), "--out", str(tmp_path / "m"))
    assert run.code == 2
    assert "line 5: churned is 'yes'" in run.err


@pytest.mark.parametrize("content", [b"", b"churned\n", b"\xff\xfe\x00", b"a,b\n1\n"])
def test_a_file_that_is_no_labelled_csv_is_refused(churn: Churn, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    run = churn("train", str(tmp_path / "bad.csv"), "--out", str(tmp_path / "m"))
    assert run.code == 2
    assert "bug" not in run.err


def test_a_bundle_is_never_overwritten(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    run = churn("train", str(labelled), "--out", str(tmp_path))
    assert run.code == 2
    assert "exists already" in run.err


def test_a_version_unfit_for_a_folder_is_refused_before_training(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    run = churn("train", str(labelled), "--out", str(tmp_path / "m"), "--version", "../up")
    assert run.code == 2
    assert "Training" not in run.err


def test_registering_without_settings_is_refused_before_training(
    churn: Churn, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from settings import SettingsError

    def missing() -> None:
        raise SettingsError("DATABASE_URL: not set.")

    monkeypatch.setattr("settings.load_settings", missing)
    run = churn("train", str(labelled), "--out", str(tmp_path / "m"), "--register")
    assert run.code == 2
    assert "DATABASE_URL" in run.err
    assert not (tmp_path / "m").exists()


def test_generated_customers_are_said_to_be_synthetic(churn: Churn, tmp_path: Path) -> None:
    run = churn("generate", "10", "--out", str(tmp_path / "s.csv"), "--seed", "1")
    assert run.code == 0
    assert "synthetic" in run.err
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 11


def test_a_file_that_is_not_the_telco_file_is_refused(churn: Churn, labelled: Path, tmp_path: Path) -> None:
    run = churn("import-telco", str(labelled), "--out", str(tmp_path / "telco"))
    assert run.code == 2
    assert "has no column Churn" in run.err


def test_a_database_that_does_not_answer_is_told(churn: Churn) -> None:
    run = churn("migrate", "status", "--database-url", "postgresql://nobody@127.0.0.1:1/none")
    assert run.code == 4
    assert "make up" in run.err


def test_a_database_url_of_another_kind_is_refused_without_repeating_it(churn: Churn) -> None:
    run = churn("migrate", "up", "--database-url", "mysql://root:hunter2@host/db")
    assert run.code == 2
    assert "postgresql://" in run.err
    assert "hunter2" not in run.err
