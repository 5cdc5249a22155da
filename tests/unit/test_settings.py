"""The settings: complete, checked at once, and the same as `.env.example` says."""

from __future__ import annotations

import base64
from dataclasses import fields
from pathlib import Path

import pytest

import settings
from scoring.compiled import EngineChoice
from settings import RESERVED, Settings, SettingsError, load_settings

REQUIRED = {"DATABASE_URL": "postgresql://churn:kX9-vTq2.bW7@db/churn", "REDIS_URL": "redis://redis:6379/0"}
TOKENS = {
    "JWT_SECRET_KEY": "f0e1d2c3b4a5968778695a4b3c2d1e0f",
    "JWT_AUDIENCE": "churn",
    "JWT_ISSUER": "https://id.example",
}
EXAMPLES_OF_SECRETS = {
    "REDIS_URL": REQUIRED["REDIS_URL"],
    "JWT_SECRET_KEY": TOKENS["JWT_SECRET_KEY"],
    "METRICS_TOKEN": "kX9-vTq2.bW7-a1b2c3d4",
    "WEBHOOK_SECRET": "whsec_" + base64.b64encode(bytes(range(32))).decode(),
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=of-the-collector",
    "WEBHOOK_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
}
EXAMPLE = Path(settings.__file__).with_name(".env.example")


def example_values() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_example_names_every_setting_and_no_other() -> None:
    assert set(example_values()) == {field.name.upper() for field in fields(Settings)} - {"UNSERVED"}


def test_the_example_holds_the_defaults() -> None:
    optional = {name: value for name, value in example_values().items() if name not in REQUIRED}
    assert load_settings(REQUIRED | optional) == load_settings(REQUIRED)


def test_every_missing_and_invalid_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"PORT": "eighty", "CHUNK_ROWS": "0", "LOG_FORMAT": "xml"})
    for name in ("DATABASE_URL", "REDIS_URL", "PORT", "CHUNK_ROWS", "LOG_FORMAT"):
        assert f"  {name}: " in str(caught.value)
    assert "make up" in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("DATABASE_URL", "mysql://x:hunter2@h/d"), ("REDIS_URL", "http://x:hunter2@h")])
def test_a_url_of_another_server_is_refused_without_echoing_its_password(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: Must begin with") as caught:
        load_settings(REQUIRED | {name: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", settings.SECRETS)
def test_a_secret_may_lie_in_a_file(name: str, tmp_path: Path) -> None:
    value = EXAMPLES_OF_SECRETS.get(name, REQUIRED["DATABASE_URL"])
    file = tmp_path / "secret"
    file.write_text(f"{value}\n")
    given = {key: each for key, each in (REQUIRED | TOKENS).items() if key != name} | {f"{name}_FILE": str(file)}
    read = getattr(load_settings(given), name.lower())
    assert read in (value, (value,))


def test_a_file_of_a_secret_that_is_missing_or_one_too_many_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("redis://elsewhere")
    with pytest.raises(SettingsError) as caught:
        load_settings(REQUIRED | {"REDIS_URL_FILE": str(file), "METRICS_TOKEN_FILE": str(tmp_path / "none")})
    assert "REDIS_URL_FILE: REDIS_URL is set as well" in str(caught.value)
    assert "METRICS_TOKEN_FILE: " in str(caught.value)


def test_the_urls_are_kept_out_of_the_representation() -> None:
    assert "secret" not in repr(load_settings(REQUIRED))


def test_an_engine_that_does_not_exist_is_refused() -> None:
    assert load_settings(REQUIRED | {"SCORING_ENGINE": "compiled"}).scoring_engine == "compiled"
    with pytest.raises(SettingsError, match="SCORING_ENGINE: Must be one of: auto, lightgbm, compiled"):
        load_settings(REQUIRED | {"SCORING_ENGINE": "onnx"})


def test_every_engine_that_scoring_knows_can_be_set() -> None:
    assert {load_settings(REQUIRED | {"SCORING_ENGINE": choice}).scoring_engine for choice in EngineChoice} == set(EngineChoice)


def test_thresholds_must_lie_in_order() -> None:
    with pytest.raises(SettingsError, match="LOW_RISK_THRESHOLD"):
        load_settings(REQUIRED | {"LOW_RISK_THRESHOLD": "0.7", "MEDIUM_RISK_THRESHOLD": "0.6", "HIGH_RISK_THRESHOLD": "0.8"})


def test_thresholds_are_set_all_or_none() -> None:
    with pytest.raises(SettingsError, match="all three"):
        load_settings(REQUIRED | {"LOW_RISK_THRESHOLD": "0.2"})
    assert load_settings(REQUIRED).low_risk_threshold is None


def test_the_cache_of_scores_is_off_unless_asked_for() -> None:
    assert not load_settings(REQUIRED).prediction_cache_enabled
    read = load_settings(REQUIRED | {"PREDICTION_CACHE_ENABLED": "true", "CACHE_TTL_SECONDS": "60"})
    assert (read.prediction_cache_enabled, read.cache_ttl_seconds, read.unserved) == (True, 60.0, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [("CACHE_TTL_SECONDS", v) for v in ("0", "-1", "nan", "inf", "soon")] + [("PREDICTION_CACHE_ENABLED", "maybe")],
)
def test_a_cache_that_could_not_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(REQUIRED | {name: value})


def test_several_webhook_secrets_are_read_the_newest_first_and_not_shown() -> None:
    new, old = (f"whsec_{base64.b64encode(letter * 32).decode()}" for letter in (b"n", b"o"))
    read = load_settings(REQUIRED | {"WEBHOOK_SECRET": f"{new}, {old}"})
    assert read.webhook_secret == (new, old)
    assert new not in repr(read)
    assert load_settings(REQUIRED).webhook_secret == ()


@pytest.mark.parametrize(
    "secret",
    ["hunter2", "whsec_", "whsec_hunter2", "whsec_AAAA", "A" * 44, "whsec_" + "A" * 120, f"whsec_{'A' * 44},hunter2"],
)
def test_a_webhook_secret_of_another_form_is_refused_without_echoing_it(secret: str) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET: Must be whsec_ and the base64") as caught:
        load_settings(REQUIRED | {"WEBHOOK_SECRET": secret})
    assert "AAAA" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WEBHOOK_ENCRYPTION_KEY", "hunter2"), ("WEBHOOK_ALLOW_PRIVATE", "yes"), ("WEBHOOK_CA_FILE", "/nowhere/ca.pem")],
)
def test_what_guards_webhooks_is_checked_at_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings(REQUIRED | {name: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("whose", ["", "WORKER_"])
def test_metrics_on_the_network_want_a_token(whose: str) -> None:
    given = REQUIRED | {f"{whose}METRICS_PORT": "9100", f"{whose}METRICS_HOST": "0.0.0.0"}  # noqa: S104
    with pytest.raises(SettingsError, match=f"{whose}METRICS_HOST: .* set METRICS_TOKEN"):
        load_settings(given)
    token = "a-token-of-enough-letters"
    assert token not in repr(load_settings(given | {"METRICS_TOKEN": token}))
    assert load_settings(given | {f"{whose}METRICS_PORT": "0"}).metrics_token == ""
    assert load_settings(given | {f"{whose}METRICS_HOST": "::1"}).metrics_token == ""


def test_the_port_of_metrics_is_another_one() -> None:
    with pytest.raises(SettingsError, match="METRICS_PORT"):
        load_settings(REQUIRED | {"METRICS_PORT": "8001"})


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "é" * 20])
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="METRICS_TOKEN") as caught:
        load_settings(REQUIRED | {"METRICS_TOKEN": token})
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://app.example/", "https://App.example", "https://*.example"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"CORS_ORIGINS: .* is no origin"):
        load_settings(REQUIRED | {"CORS_ORIGINS": f"https://a.example, {origin}"})


@pytest.mark.parametrize(
    ("environment", "said", "allowed"),
    [("production", "", False), ("production", "true", True), ("staging", "", True), ("development", "false", False)],
)
def test_webhooks_go_by_http_anywhere_but_in_production(environment: str, said: str, allowed: bool) -> None:
    read = load_settings(REQUIRED | {"ENVIRONMENT": environment, "WEBHOOK_ALLOW_HTTP": said})
    assert read.webhook_targets().allow_http is allowed
    assert not read.webhook_targets().allows("127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"), [("WEBHOOK_TIMEOUT_SECONDS", v) for v in ("0", "61", "nan")] + [("WEBHOOK_RETRY_ATTEMPTS", "0")]
)
def test_webhooks_that_could_not_be_sent_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(REQUIRED | {name: value})


def test_a_blank_value_means_the_default() -> None:
    assert load_settings(REQUIRED | {"PORT": ""}).port == 8001


def test_a_blank_required_value_counts_as_missing() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: not set"):
        load_settings(REQUIRED | {"DATABASE_URL": ""})


def test_lists_are_split_at_commas() -> None:
    read = load_settings(REQUIRED | {"CORS_ORIGINS": "https://a.example, https://b.example"})
    assert read.cors_origins == ("https://a.example", "https://b.example")


def test_a_key_is_required_unless_the_setting_says_otherwise() -> None:
    assert load_settings(REQUIRED).require_api_key
    assert not load_settings(REQUIRED | {"REQUIRE_API_KEY": "false"}).require_api_key


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_only_development_and_testing_may_do_without_keys(environment: str) -> None:
    with pytest.raises(SettingsError, match=f"REQUIRE_API_KEY: only development and testing .* not {environment}"):
        load_settings(REQUIRED | {"ENVIRONMENT": environment, "REQUIRE_API_KEY": "false"})
    assert not load_settings(REQUIRED | {"ENVIRONMENT": "testing", "REQUIRE_API_KEY": "false"}).require_api_key


@pytest.mark.parametrize(
    "name", ["Authorization", "X API Key", "X-API-Key:", "", "-", "X-Schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel"]
)
def test_a_header_that_could_not_hold_a_key_is_refused(name: str) -> None:
    if not name:
        assert load_settings(REQUIRED | {"API_KEY_HEADER_NAME": name}).api_key_header_name == "X-API-Key"
        return
    with pytest.raises(SettingsError, match="API_KEY_HEADER_NAME: Must be a header's name"):
        load_settings(REQUIRED | {"API_KEY_HEADER_NAME": name})


def test_the_secret_of_tokens_is_not_shown() -> None:
    read = load_settings(REQUIRED | TOKENS)
    assert read.jwt_secret_key == TOKENS["JWT_SECRET_KEY"]
    assert TOKENS["JWT_SECRET_KEY"] not in repr(read)


def test_a_short_secret_is_refused_everywhere_without_echoing_it() -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET_KEY: Must be at least 32 bytes") as caught:
        load_settings(REQUIRED | TOKENS | {"JWT_SECRET_KEY": "hunter2" * 4})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    ["change-me-in-production-4711-0815-abcdef", "My Default Passphrase 1234567890 xyz", "abcabcabc" * 5, "0123456789" * 4],
)
def test_production_refuses_a_secret_that_may_be_guessed(secret: str) -> None:
    given = REQUIRED | TOKENS | {"JWT_SECRET_KEY": secret}
    assert load_settings(given).jwt_secret_key == secret
    with pytest.raises(SettingsError, match="JWT_SECRET_KEY: may be guessed") as caught:
        load_settings(given | {"ENVIRONMENT": "production"})
    assert secret not in str(caught.value)
    load_settings(given | {"ENVIRONMENT": "production", "JWT_SECRET_KEY": TOKENS["JWT_SECRET_KEY"]})


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://churn:churn@db/churn"),
        ("DATABASE_WORKER_URL", "postgresql://churn_worker:churn_worker@db/churn"),
        ("DATABASE_OWNER_URL", "postgresql://owner:postgres@db/churn"),
        ("REDIS_URL", "redis://:changeme@redis:6379/0"),
        ("REDIS_URL", "redis://churn:p%61ssword@redis:6379/0"),
        ("METRICS_TOKEN", "a" * 16),
        ("METRICS_TOKEN", "changeme-changeme"),
        ("WEBHOOK_SECRET", f"whsec_{base64.b64encode(bytes(32)).decode()}"),
        ("WEBHOOK_ENCRYPTION_KEY", base64.urlsafe_b64encode(bytes(32)).decode()),
    ],
)
def test_where_it_matters_no_secret_may_be_an_example_s(environment: str, name: str, value: str) -> None:
    given = REQUIRED | {name: value}
    load_settings(given)
    with pytest.raises(SettingsError, match=rf"{name}: .*may be guessed") as caught:
        load_settings(given | {"ENVIRONMENT": environment})
    assert value not in str(caught.value)


def test_production_starts_with_what_servers_and_generators_make() -> None:
    made = {
        "DATABASE_URL": "postgresql://churn_api:d264c2338c3f75b0@db/churn",
        "DATABASE_OWNER_URL": "postgresql:///churn?host=/run/postgresql",
        "REDIS_URL": "rediss://redis:6379/0",
        "METRICS_TOKEN": "9f2c51d07be84a36",
        "WEBHOOK_SECRET": f"whsec_{base64.b64encode(bytes(range(32))).decode()}",
    }
    assert load_settings(made | {"ENVIRONMENT": "production"}).environment == "production"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM: Must be one of: HS256, RS256, EdDSA"),
        ({"JWT_ALGORITHM": "RS256"}, "JWT_SECRET_KEY: is for HS256"),
        ({"JWT_JWKS_FILE": "keys.json"}, "JWT_JWKS_FILE: is for JWT_ALGORITHM=RS256 or EdDSA"),
        ({"JWT_AUDIENCE": ""}, "JWT_AUDIENCE: not set"),
        ({"JWT_ISSUER": ""}, "JWT_ISSUER: not set"),
    ],
)
def test_tokens_that_could_not_be_verified_safely_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(REQUIRED | TOKENS | given)


def test_other_reserved_names_are_reported() -> None:
    assert load_settings(REQUIRED | {RESERVED[0]: "1"}).unserved == (RESERVED[0],)
    assert not set(RESERVED) & set(example_values())


def test_the_process_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=9000\nHOST=0.0.0.0\n")
    monkeypatch.setattr(settings, "ENV_FILE", env_file)
    for name, value in {**REQUIRED, "PORT": "9001", "HOST": ""}.items():
        monkeypatch.setenv(name, value)
    read = load_settings()
    assert (read.port, read.host) == (9001, "0.0.0.0")  # noqa: S104


def test_an_explicit_mapping_ignores_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9001")
    assert load_settings(REQUIRED).port == 8001
