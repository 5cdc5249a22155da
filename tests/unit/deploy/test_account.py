"""Who runs Postgres, and what it takes for them to reach it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from deploy.local import account
from deploy.local.account import Account, account_for, let_pass, let_read

STRANGER = Account("stranger", 54_321, 54_321)


def test_an_ordinary_user_runs_postgres_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account_for(tmp_path) is None


def test_root_hands_postgres_to_the_owner_of_the_folder_or_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = tmp_path.stat().st_uid
    found = account_for(tmp_path / "not" / "there" / "yet")
    assert found is not None
    assert found.name == ("nobody" if owner == 0 else pwd.getpwuid(owner).pw_name)
    assert found.uid != 0


def test_a_closed_folder_on_the_way_is_opened_for_passing_and_not_for_reading(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o700)
    assert closed in let_pass(STRANGER, closed / "inner" / "data")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701
    assert let_pass(STRANGER, closed / "inner" / "data") == []


def test_a_wheel_installed_under_a_strict_umask_is_made_readable(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program, data = tmp_path / "bin" / "postgres", tmp_path / "share"
    program.touch(0o700)
    data.touch(0o600)
    for folder in (tmp_path, tmp_path / "bin"):
        folder.chmod(0o700)
    let_read(STRANGER, tmp_path)
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (tmp_path, tmp_path / "bin", program, data)]
    assert modes == [0o705, 0o705, 0o705, 0o604]


@pytest.mark.parametrize(("uid", "gid", "mode", "may"), [(1, 2, 0o100, True), (9, 2, 0o710, True), (9, 9, 0o710, False)])
def test_permission_is_judged_as_the_kernel_does(uid: int, gid: int, mode: int, may: bool) -> None:
    found = os.stat_result((mode, 0, 0, 0, 1, 2, 0, 0, 0, 0))
    assert account._may_search(Account("someone", uid, gid), found) is may
