"""Flower's settings: no view without a login, none of the tasks' arguments, a history that nobody else can write."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.flower.prefix import prefix_of
from deploy.local.layout import PROJECT

LOGIN = "ops:rK4-wq8.Zt2"
SIGN_IN = {
    "FLOWER_AUTH": "ann@example.com|bob@example.com",
    "FLOWER_AUTH_PROVIDER": "okta",
    "FLOWER_OAUTH2_KEY": "a-client",
    "FLOWER_OAUTH2_SECRET": "Jd8-2kq.Lw0z",
    "FLOWER_OAUTH2_REDIRECT_URI": "https://ops.example.com/login",
    "FLOWER_OAUTH2_OKTA_BASE_URL": "https://id.example.com/oauth2",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """None of the machine's own settings of Flower, and its umask and pages as they were."""
    from flower.urls import handlers

    for name in [*(name for name in os.environ if name.startswith("FLOWER_")), "ENVIRONMENT"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWER_DB", str(tmp_path / "flower" / "history"))
    before, mask = list(handlers), os.umask(0o022)
    os.umask(mask)
    yield
    handlers[:] = before
    os.umask(mask)


def settings() -> dict[str, Any]:
    return runpy.run_path(str(PROJECT / "deploy" / "flower" / "flowerconfig.py"))


def choose(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)


class TestLogin:
    def test_flower_does_not_start_without_a_login(self) -> None:
        with pytest.raises(SystemExit, match=r"set FLOWER_BASIC_AUTH=user:password, or FLOWER_AUTH .* FLOWER_AUTH_PROVIDER"):
            settings()

    def test_nor_with_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN, **SIGN_IN)
        with pytest.raises(SystemExit, match="are both set"):
            settings()

    @pytest.mark.parametrize("login", ["flower:flower", "ops:rK4-wq8.Zt2,guest:guest", "ops:changeme123", "ops:"])
    def test_in_production_flower_refuses_a_password_that_may_be_guessed(
        self, monkeypatch: pytest.MonkeyPatch, login: str
    ) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=login)
        assert settings()["basic_auth"] == login.split(",")
        choose(monkeypatch, ENVIRONMENT="production")
        with pytest.raises(SystemExit, match="FLOWER_BASIC_AUTH: a password in it may be guessed"):
            settings()
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
        assert settings()["basic_auth"] == [LOGIN]

    @pytest.mark.parametrize("login", ["ops", ":x", "ops:a,"])
    def test_a_login_names_a_user_and_a_password(self, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=login)
        with pytest.raises(SystemExit, match="must be user:password"):
            settings()

    @pytest.mark.parametrize(
        ("provider", "handler"),
        [
            ("okta", "OktaLoginHandler"),
            ("Google", "GoogleAuth2LoginHandler"),
            ("github", "GithubLoginHandler"),
            ("gitlab", "GitLabLoginHandler"),
        ],
    )
    def test_people_may_sign_in_by_a_provider(self, monkeypatch: pytest.MonkeyPatch, provider: str, handler: str) -> None:
        from flower.views import auth

        choose(monkeypatch, ENVIRONMENT="production", **{**SIGN_IN, "FLOWER_AUTH_PROVIDER": provider})
        chosen = settings()
        assert chosen["auth_provider"] == f"flower.views.auth.{handler}"
        assert hasattr(auth, handler)
        assert (chosen["basic_auth"], chosen["auth"]) == ([], SIGN_IN["FLOWER_AUTH"])
        assert (chosen["oauth2_key"], chosen["oauth2_secret"]) == ("a-client", SIGN_IN["FLOWER_OAUTH2_SECRET"])

    @pytest.mark.parametrize(
        "missing",
        ["FLOWER_OAUTH2_KEY", "FLOWER_OAUTH2_SECRET", "FLOWER_OAUTH2_REDIRECT_URI", "FLOWER_OAUTH2_OKTA_BASE_URL"],
    )
    def test_what_a_sign_in_needs_is_named(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        choose(monkeypatch, **{**SIGN_IN, missing: ""})
        with pytest.raises(SystemExit, match=f"^{missing}: not set"):
            settings()

    @pytest.mark.parametrize("provider", ["", "ldap", "flower.views.auth.OktaLoginHandler"])
    def test_a_provider_that_flower_does_not_know_is_refused(self, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
        choose(monkeypatch, **{**SIGN_IN, "FLOWER_AUTH_PROVIDER": provider})
        with pytest.raises(SystemExit, match="must be one of google, github, gitlab, okta"):
            settings()

    @pytest.mark.parametrize(
        "pattern", [".*", ".*@.*", "*", ".*@", "@example.com", "ann", "ann@*.com", ".*@com", ".*@a.com|b@c.com"]
    )
    def test_a_pattern_that_lets_everybody_in_is_refused(self, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
        choose(monkeypatch, **{**SIGN_IN, "FLOWER_AUTH": pattern})
        with pytest.raises(SystemExit, match="FLOWER_AUTH: must be e-mail addresses"):
            settings()

    @pytest.mark.parametrize("pattern", ["ann@example.com", ".*@example.com", "a.b@ex-ample.co.uk|c@d.org"])
    def test_patterns_that_name_people_or_a_domain(self, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
        from flower.utils.authentication import authenticate, validate_auth_option

        choose(monkeypatch, **{**SIGN_IN, "FLOWER_AUTH": pattern})
        chosen = settings()["auth"]
        assert validate_auth_option(chosen)
        assert not authenticate(chosen, "mallory@elsewhere.com")

    @pytest.mark.parametrize("variable", ["FLOWER_OAUTH2_REDIRECT_URI", "FLOWER_OAUTH2_OKTA_BASE_URL"])
    def test_in_production_nobody_signs_in_without_tls(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        choose(monkeypatch, ENVIRONMENT="production", **{**SIGN_IN, variable: "http://id.example.com/login"})
        with pytest.raises(SystemExit, match=f"{variable}: must begin with https"):
            settings()

    def test_the_provider_s_answer_must_come_to_flower_s_own_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choose(monkeypatch, FLOWER_URL_PREFIX="/flower", **SIGN_IN)
        with pytest.raises(SystemExit, match="its path must be /flower/login"):
            settings()
        choose(monkeypatch, FLOWER_OAUTH2_REDIRECT_URI="https://ops.example.com/flower/login")
        assert settings()["url_prefix"] == "flower"

    def test_what_signs_the_sessions_may_not_be_guessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choose(monkeypatch, ENVIRONMENT="production", FLOWER_COOKIE_SECRET="change-me" * 6, **SIGN_IN)
        with pytest.raises(SystemExit, match="FLOWER_COOKIE_SECRET: may be guessed"):
            settings()
        choose(monkeypatch, FLOWER_COOKIE_SECRET="0b1946ac92492d2347c6235b4d2611184")
        assert settings()["cookie_secret"] == "0b1946ac92492d2347c6235b4d2611184"

    def test_a_refusal_repeats_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for changes in ({"FLOWER_BASIC_AUTH": "ops-without-colon"}, {**SIGN_IN, "FLOWER_AUTH_PROVIDER": "x"}):
            monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
            choose(monkeypatch, **changes)
            with pytest.raises(SystemExit) as refused:
                settings()
            assert not any(value in str(refused.value) for name, value in changes.items() if "PROVIDER" not in name)


class TestPrefix:
    @pytest.mark.parametrize(("given", "prefix"), [("", ""), ("/", ""), ("flower", "/flower"), ("/ops/flower/", "/ops/flower")])
    def test_it_has_one_slash_before_it(self, monkeypatch: pytest.MonkeyPatch, given: str, prefix: str) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN, FLOWER_URL_PREFIX=given)
        assert (prefix_of({"FLOWER_URL_PREFIX": given}), settings()["url_prefix"]) == (prefix, prefix.strip("/"))

    @pytest.mark.parametrize("given", ["a b", "/a//b", "/../x", "/x?y", "/(.*)", "https://x/flower"])
    def test_it_is_a_path(self, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN, FLOWER_URL_PREFIX=given)
        with pytest.raises(SystemExit, match="FLOWER_URL_PREFIX: must be a path"):
            settings()


class TestHistory:
    def test_it_is_kept_in_a_folder_for_flower_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
        chosen = settings()
        assert (chosen["persistent"], chosen["db"]) == (True, str(tmp_path / "flower" / "history"))
        assert chosen["state_save_interval"] > 0
        assert (tmp_path / "flower").stat().st_mode & 0o777 == 0o700
        (tmp_path / "flower" / "history").touch()
        assert (tmp_path / "flower" / "history").stat().st_mode & 0o077 == 0

    def test_it_may_be_off(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN, FLOWER_PERSISTENT="0")
        assert not settings()["persistent"]
        assert not (tmp_path / "flower").exists()

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
    def test_a_folder_into_which_others_write_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
    ) -> None:
        """Flower unpickles what it finds there: who can write it can have it run what they like."""
        (tmp_path / "flower").mkdir()
        (tmp_path / "flower").chmod(mode)
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
        with pytest.raises(SystemExit, match=r"FLOWER_DB: .*/flower is not of the account that runs Flower alone"):
            settings()

    @pytest.mark.parametrize("name", ["history", "history.db"])
    def test_so_is_a_file_that_others_write_or_that_is_elsewhere(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
        settings()
        file = tmp_path / "flower" / name
        file.touch()
        file.chmod(0o666)
        with pytest.raises(SystemExit, match=f"FLOWER_DB: .*/{name} is not of the account"):
            settings()
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SystemExit, match=f"FLOWER_DB: .*/{name} is not of the account"):
            settings()

    def test_so_is_one_of_another_account(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "flower").mkdir()
        choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
        monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
        with pytest.raises(SystemExit, match="is not of the account"):
            settings()


def test_flower_reads_only_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, FLOWER_BASIC_AUTH="a:b,c:d")
    assert settings()["basic_auth"] == ["a:b", "c:d"]
    for given, read_only in (("", True), ("1", True), ("0", False)):
        choose(monkeypatch, FLOWER_READ_ONLY=given)
        assert settings()["read_only"] is read_only


def test_flower_listens_on_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows /metrics and /healthcheck without a login, so it must not be reached from elsewhere by default."""
    choose(monkeypatch, FLOWER_BASIC_AUTH="a:b")
    for given, address in (("", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")):
        choose(monkeypatch, FLOWER_ADDRESS=given)
        assert settings()["address"] == address


def test_no_page_shows_arguments_or_results(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, FLOWER_BASIC_AUTH="a:b")
    chosen = settings()
    task = chosen["format_task"](SimpleNamespace(name="score chunk", args="('b-1', 0)", kwargs="{}", result="None"))
    assert (task.name, task.args, task.kwargs, task.result) == ("score chunk", "", "", "")
    assert not {"args", "kwargs", "result"} & set(chosen["tasks_columns"].split(","))


def test_flower_knows_every_setting_and_column_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from flower.options import default_options
    from flower.views.tasks import TASK_COLUMNS

    choose(monkeypatch, FLOWER_BASIC_AUTH=LOGIN)
    chosen = settings()
    options = {name for name in chosen if name in default_options}
    assert options >= {"basic_auth", "auth", "auth_provider", "url_prefix", "db", "persistent", "state_save_interval"}
    assert options >= {"address", "read_only", "tasks_columns", "max_tasks", "purge_offline_workers", "format_task"}
    assert set(chosen["tasks_columns"].split(",")) <= set(TASK_COLUMNS)


def test_the_page_about_flower_lists_every_setting() -> None:
    folder = PROJECT / "deploy" / "flower"
    read = {name for path in folder.glob("*.py") for name in re.findall(r"\bFLOWER_[A-Z0-9_]+\b", path.read_text())}
    listed = set(re.findall(r"^\| `(FLOWER_[A-Z0-9_]+)` \|", (PROJECT / "docs" / "flower.md").read_text(), re.MULTILINE))
    assert read | {"FLOWER_PORT"} <= listed
