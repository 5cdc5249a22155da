"""The settings: every environment variable that the product reads, checked once at start.

This module alone reads the environment (and a `.env` file beside it); factories receive the frozen `Settings`, and `db/` and
`scoring/` get plain arguments. `.env.example` lists the same names with the same defaults, which a test holds it to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from environs import Env, EnvValidationError
from marshmallow import ValidationError
from marshmallow.validate import Length, OneOf, Range

from schemas.secrets import (
    FEWEST_BYTES,
    FEWEST_SECRET_BYTES,
    MOST_BYTES,
    PREFIX,
    is_guessable,
    is_placeholder,
    is_sealing_key,
    is_secret,
)
from schemas.targets import Targets, networks_of

ENV_FILE: Final = Path(__file__).with_name(".env")

RESERVED: Final = ("MODEL_DRIFT_THRESHOLD",)
"""Names that the contract keeps for later; a value is reported at start, because nothing acts on it yet."""

_POSTGRES_SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+psycopg2://")
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_LOOPBACK: Final = "127.0.0.1"
_THIS_MACHINE: Final = frozenset({_LOOPBACK, "::1", "localhost"})
_FEWEST_TOKEN_LETTERS: Final = 16
_ORIGIN: Final = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_POSITIVE: Final = Range(min=0, min_inclusive=False)


class SettingsError(Exception):
    """The environment is not fit to start with; the message names every fault and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the processes are started with; each field is the environment variable of the same name in capitals."""

    app_name: str
    environment: str
    host: str
    port: int
    workers: int
    """Processes of the API."""
    api_threads: int
    """Threads of each API process; a long poll or an event stream holds one."""
    log_level: str
    log_format: str
    cors_origins: tuple[str, ...]
    trusted_hosts: tuple[str, ...]
    """Host names that the API answers to; empty means any."""
    trusted_proxies: int
    """How many proxies stand before the API, each of which adds its word to X-Forwarded-For, -Proto and -Host."""
    hsts_seconds: int
    """How long browsers that came by TLS are to come by nothing else; 0 does not say so."""

    require_api_key: bool
    """Whether every route that is not public wants a key or token; without, everybody may do anything as the default team."""
    api_key_header_name: str
    jwt_algorithm: str
    """The one algorithm by which tokens are signed."""
    jwt_secret_key: str = field(repr=False)
    """What verifies tokens signed by HS256; empty where there are none."""
    jwt_jwks_file: Path | None
    """The public keys that verify tokens signed by RS256 or EdDSA; None where there are none."""
    jwt_audience: str
    jwt_issuer: str
    jwt_team_claim: str
    jwt_scopes_claim: str

    database_url: str = field(repr=False)
    """What the process connects with: the API by its own role, a worker by the workers'."""
    database_worker_url: str = field(repr=False)
    """What workers connect with; the same as database_url if it was not set."""
    database_owner_url: str = field(repr=False)
    """What an operator's commands connect with, such as migrations; the same as database_url if it was not set."""
    database_pool_size: int
    database_max_overflow: int
    database_timeout_seconds: float
    """What a statement of the API may take."""
    redis_url: str = field(repr=False)
    broker_timeout_seconds: float

    model_storage_path: Path
    default_model_version: str
    min_model_accuracy: float
    """Held-out AUC below which a model is not activated."""
    scoring_engine: str
    """auto: a model's compiled engine where it has one, else LightGBM's; or one of the two and no other."""
    low_risk_threshold: float | None
    medium_risk_threshold: float | None
    high_risk_threshold: float | None
    """Where the risk bands end, all three or none; None leaves it to the model's bundle."""
    prediction_timeout_seconds: float
    prediction_cache_enabled: bool
    """Whether the worker of single predictions keeps scores for a while; see docs/decisions.md for what that is worth."""
    cache_ttl_seconds: float
    """How long it keeps one."""

    inline_max_bytes: int
    """Bodies up to this size are validated while the client waits; larger ones while they arrive, or by a worker."""
    early_validation: bool
    """Whether a child of the API validates large CSV and NDJSON files while they arrive; workers then read only faulty ones."""
    max_json_size_mb: int
    max_json_values: int
    """Values of a JSON body: each costs its place in memory, however few bytes it has."""
    max_request_size_mb: int
    max_decompressed_size_mb: int
    max_batch_rows: int
    max_intake_memory_mb: int
    """What reading an input may take of a worker's memory, or of the process that decodes a Parquet file."""
    max_import_rows: int
    """Rows of what the API itself reads to its end: an import or a dry run."""
    max_import_size_mb: int
    """Its bytes, as sent and decompressed."""
    max_imports_at_once: int
    """Imports and dry runs of all teams that one process of the API reads at once."""

    rate_limit_requests_per_minute: int
    """Requests of a team; 0 sets no limit, as for the next two."""
    batch_rate_limit_per_minute: int
    unauthorised_requests_per_minute: int
    """Requests without a valid key that an address may send."""
    client_header_timeout_seconds: float
    """What a client may take for a request's line and headers."""
    client_body_timeout_seconds: float
    """How far its body, or its taking of an answer, may fall behind the lowest rate."""
    client_min_bytes_per_second: int

    rate_limit_on_redis_failure: str
    """While Redis is away: `open` has each process count by itself, `closed` refuses requests."""

    chunk_rows: int
    lease_seconds: float
    max_attempts: int
    republish_after_seconds: float
    rescue_interval_seconds: float
    dispatch_window: int
    batch_window: int
    team_window: int
    """Chunks of one team that may be under way at once; 0 means as many as of all."""
    max_backlog_customers: int
    max_open_batches: int
    """From so much waiting work on no further batch is accepted."""
    max_open_batches_of_team: int
    max_rows_of_team_a_day: int
    """Rows of a team's batches and imports in a day of UTC; 0 sets no limit, here, above and below."""
    max_stored_upload_mb_of_team: int
    """Uploads of a team's that are stored until a worker has read them."""

    webhook_secret: tuple[str, ...] = field(repr=False)
    """What signs the webhooks of a batch's callback_url, the newest first; empty means that callback_url is refused."""
    webhook_encryption_key: tuple[str, ...] = field(repr=False)
    """What the secrets of registered receivers are stored under, the newest first; empty means as they are."""
    webhook_timeout_seconds: float
    webhook_retry_attempts: int
    """How often a webhook is sent at most."""
    webhook_allow_private: str
    """Networks that webhooks may be sent to though they are not global; see schemas.targets."""
    webhook_allow_http: bool | None
    """Whether webhooks may go without TLS; None: anywhere but in production."""
    webhook_ca_file: Path | None
    """Certificates of authorities that webhooks trust beside the public ones."""

    prometheus_multiproc_dir: str
    metrics_host: str
    metrics_port: int
    """A port of the API that shows its metrics and nothing else; 0 means none."""
    metrics_token: str = field(repr=False)
    """What whoever reads metrics has to send as Authorization: Bearer; blank means nothing."""
    worker_metrics_host: str
    worker_metrics_port: int
    worker_niceness: int
    """How far a worker's processes stand back for others on their machine: 0 not at all, 19 as far as they can."""

    tracing_enabled: bool
    """Whether requests are recorded as traces and sent to a collector; see docs/tracing.md."""
    tracing_sample_ratio: float
    """Of how many requests, from 0 to 1."""
    tracing_follow_clients: bool
    """Whether a request whose client says (traceparent) whether its trace is recorded is left to it; else the ratio decides."""
    otel_exporter_otlp_endpoint: str
    """The collector's base URL, for OTLP by HTTP."""
    otel_exporter_otlp_headers: str = field(repr=False)
    """What it wants with each request, such as a key: name=value, with commas between."""

    failpoints: str = ""
    """Orders to break this very process, for tests (see failpoints.py); refused unless the environment is `testing`."""

    unserved: tuple[str, ...] = ()
    """Reserved names that carry a value which nothing acts on; the factories log them as a warning."""

    def input_bounds(self) -> dict[str, int]:
        """The bounds of one input, as `intake.slices.Limits` takes them; the API and the workers must hold to the same."""
        return {
            "max_rows": self.max_batch_rows,
            "max_decompressed_bytes": self.max_decompressed_size_mb << 20,
            "parquet_memory_bytes": self.max_intake_memory_mb << 20,
        }

    def of_imports(self) -> Settings:
        """These settings with the tighter bounds of an input that the API itself reads to its end while the client waits."""
        return replace(
            self,
            max_request_size_mb=min(self.max_request_size_mb, self.max_import_size_mb),
            max_decompressed_size_mb=min(self.max_decompressed_size_mb, self.max_import_size_mb),
            max_batch_rows=min(self.max_batch_rows, self.max_import_rows),
        )

    def webhook_targets(self) -> Targets:
        """Where webhooks may be sent; the API asks when one is registered, the worker each time it sends one."""
        allow_http = self.environment != "production" if self.webhook_allow_http is None else self.webhook_allow_http
        return Targets(networks_of(self.webhook_allow_private), allow_http)


SECRETS: Final = (
    "DATABASE_URL",
    "DATABASE_WORKER_URL",
    "DATABASE_OWNER_URL",
    "REDIS_URL",
    "JWT_SECRET_KEY",
    "METRICS_TOKEN",
    "WEBHOOK_SECRET",
    "WEBHOOK_ENCRYPTION_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
)
"""What may lie in a file instead, named by NAME_FILE."""


class _Variables(Env):
    """The given variables, falling back on those of the `.env` file; a blank value counts as not set.

    Blank means unset because `.env` files and compose files cannot say "unset" in any other way. A secret may lie
    in a file that NAME_FILE names, as containers are given theirs: there it is in no environment and in no `docker inspect`.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._variables = variables
        self._from_files: dict[str, str] = {}

    def read_secret_files(self) -> list[str]:
        """Read the files of secrets; returns what is wrong with any."""
        faults = []
        for name in SECRETS:
            path = self._get_value(f"{name}_FILE", "")
            if not path:
                continue
            if self._get_value(name, ""):
                faults.append(f"  {name}_FILE: {name} is set as well; set one of them")
            try:
                self._from_files[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                faults.append(f"  {name}_FILE: {path} cannot be read ({type(exc).__name__})")
        return faults

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._from_files.get(env_key) or self._variables.get(env_key) or self._environ.get(env_key) or default


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the settings.

    Parameters
    ----------
    environ : mapping of str to str, optional
        The variables to read. None reads the process's environment and, where that is silent, the `.env` file of the project.

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        Names every missing or invalid variable at once.
    """
    env = _Variables(os.environ if environ is None else environ)
    if environ is None:
        env.read_env(ENV_FILE, recurse=False)
    if faults := env.read_secret_files():
        raise SettingsError("\n".join(["The settings cannot be used:", *faults]))
    values = {
        **_server(env),
        **_identities(env),
        **_stores(env),
        **_models(env),
        **_limits(env),
        **_rates(env),
        **_ledger(env),
        **_webhooks(env),
        **_metrics(env),
        **_traces(env),
        **_testing(env),
    }
    reserved = [name for name in RESERVED if env.str(name, "")]
    try:
        env.seal()
    except EnvValidationError as exc:
        raise _explained(cast("Mapping[str, list[str]]", exc.error_messages)) from exc
    if faults := _disagreements(values) + _of_identities(values) + _of_secrets(values):
        raise SettingsError("\n".join(["The settings cannot be used:", *faults]))
    return Settings(**values, unserved=tuple(reserved))


def _server(env: Env) -> dict[str, Any]:
    return {
        "app_name": env.str("APP_NAME", "churn-api"),
        "environment": env.str(
            "ENVIRONMENT", "development", validate=OneOf(("development", "testing", "staging", "production"))
        ),
        "host": env.str("HOST", "127.0.0.1"),
        "port": env.int("PORT", 8001, validate=Range(0, 65_535)),
        "workers": env.int("WORKERS", 2, validate=Range(1, 256)),
        "api_threads": env.int("API_THREADS", 16, validate=Range(1, 1_000)),
        "log_level": env.str("LOG_LEVEL", "INFO", validate=OneOf(("DEBUG", "INFO", "WARNING", "ERROR"))),
        "log_format": env.str("LOG_FORMAT", "json", validate=OneOf(("json", "console"))),
        "cors_origins": _names(env, "CORS_ORIGINS", validate=_are_origins),
        "trusted_hosts": _names(env, "TRUSTED_HOSTS"),
        "trusted_proxies": env.int("TRUSTED_PROXIES", 0, validate=Range(0, 10)),
        "hsts_seconds": env.int("HSTS_SECONDS", 31_536_000, validate=Range(0)),
    }


def _identities(env: Env) -> dict[str, Any]:
    jwks_file = env.str("JWT_JWKS_FILE", "")
    return {
        "require_api_key": env.bool("REQUIRE_API_KEY", True),
        "api_key_header_name": env.str("API_KEY_HEADER_NAME", "X-API-Key", validate=_is_header_for_keys),
        "jwt_algorithm": env.str("JWT_ALGORITHM", "HS256", validate=OneOf(("HS256", "RS256", "EdDSA"))),
        "jwt_secret_key": env.str("JWT_SECRET_KEY", "", validate=_is_long_enough),
        "jwt_jwks_file": ENV_FILE.parent / jwks_file if jwks_file else None,
        "jwt_audience": env.str("JWT_AUDIENCE", ""),
        "jwt_issuer": env.str("JWT_ISSUER", ""),
        "jwt_team_claim": env.str("JWT_TEAM_CLAIM", "team"),
        "jwt_scopes_claim": env.str("JWT_SCOPES_CLAIM", "scopes"),
    }


def _stores(env: Env) -> dict[str, Any]:
    is_postgres = _begins_with(_POSTGRES_SCHEMES)
    url = env.str("DATABASE_URL", validate=is_postgres)
    return {
        "database_url": url,
        "database_worker_url": env.str("DATABASE_WORKER_URL", url, validate=is_postgres),
        "database_owner_url": env.str("DATABASE_OWNER_URL", url, validate=is_postgres),
        "database_pool_size": env.int("DATABASE_POOL_SIZE", 5, validate=Range(1)),
        "database_max_overflow": env.int("DATABASE_MAX_OVERFLOW", 5, validate=Range(0)),
        "database_timeout_seconds": env.float("DATABASE_TIMEOUT_SECONDS", 15.0, validate=_POSITIVE),
        "redis_url": env.str("REDIS_URL", validate=_begins_with(_REDIS_SCHEMES)),
        "broker_timeout_seconds": env.float("BROKER_TIMEOUT_SECONDS", 1.0, validate=_POSITIVE),
    }


def _models(env: Env) -> dict[str, Any]:
    return {
        # Relative to the project, so that the command line finds it from any folder.
        "model_storage_path": ENV_FILE.parent / env.path("MODEL_STORAGE_PATH", Path("var/models")),
        "default_model_version": env.str("DEFAULT_MODEL_VERSION", "1.0.0", validate=Length(max=50)),
        "min_model_accuracy": env.float("MIN_MODEL_ACCURACY", 0.5, validate=Range(0, 1)),
        "scoring_engine": env.str("SCORING_ENGINE", "auto", validate=OneOf(("auto", "lightgbm", "compiled"))),
        "low_risk_threshold": env.float("LOW_RISK_THRESHOLD", None),
        "medium_risk_threshold": env.float("MEDIUM_RISK_THRESHOLD", None),
        "high_risk_threshold": env.float("HIGH_RISK_THRESHOLD", None),
        "prediction_timeout_seconds": env.float("PREDICTION_TIMEOUT_SECONDS", 5.0, validate=_POSITIVE),
        "prediction_cache_enabled": env.bool("PREDICTION_CACHE_ENABLED", False),
        "cache_ttl_seconds": env.float("CACHE_TTL_SECONDS", 300.0, validate=_POSITIVE),
    }


def _limits(env: Env) -> dict[str, Any]:
    return {
        "inline_max_bytes": env.int("INLINE_MAX_BYTES", 1_048_576, validate=Range(0)),
        "early_validation": env.bool("EARLY_VALIDATION", True),
        "max_json_size_mb": env.int("MAX_JSON_SIZE_MB", 32, validate=Range(1)),
        "max_json_values": env.int("MAX_JSON_VALUES", 2_000_000, validate=Range(1)),
        "max_request_size_mb": env.int("MAX_REQUEST_SIZE_MB", 2_048, validate=Range(1)),
        "max_decompressed_size_mb": env.int("MAX_DECOMPRESSED_SIZE_MB", 8_192, validate=Range(1)),
        # Below, the libraries that read files do not start.
        "max_intake_memory_mb": env.int("MAX_INTAKE_MEMORY_MB", 2_048, validate=Range(512)),
        "max_batch_rows": env.int("MAX_BATCH_ROWS", 10_000_000, validate=Range(1, 2**31 - 1)),
        "max_import_rows": env.int("MAX_IMPORT_ROWS", 1_000_000, validate=Range(1, 2**31 - 1)),
        "max_import_size_mb": env.int("MAX_IMPORT_SIZE_MB", 512, validate=Range(1)),
        "max_imports_at_once": env.int("MAX_IMPORTS_AT_ONCE", 2, validate=Range(1)),
    }


def _rates(env: Env) -> dict[str, Any]:
    return {
        "client_header_timeout_seconds": env.float("CLIENT_HEADER_TIMEOUT_SECONDS", 10.0, validate=_POSITIVE),
        "client_body_timeout_seconds": env.float("CLIENT_BODY_TIMEOUT_SECONDS", 30.0, validate=_POSITIVE),
        "client_min_bytes_per_second": env.int("CLIENT_MIN_BYTES_PER_SECOND", 1_024, validate=Range(1)),
        "rate_limit_requests_per_minute": env.int("RATE_LIMIT_REQUESTS_PER_MINUTE", 1_000, validate=Range(0)),
        "batch_rate_limit_per_minute": env.int("BATCH_RATE_LIMIT_PER_MINUTE", 10, validate=Range(0)),
        "unauthorised_requests_per_minute": env.int("UNAUTHORISED_REQUESTS_PER_MINUTE", 60, validate=Range(0)),
        "rate_limit_on_redis_failure": env.str("RATE_LIMIT_ON_REDIS_FAILURE", "open", validate=OneOf(("open", "closed"))),
    }


def _ledger(env: Env) -> dict[str, Any]:
    return {
        "chunk_rows": env.int("CHUNK_ROWS", 25_000, validate=Range(1, 1_000_000)),
        "lease_seconds": env.float("LEASE_SECONDS", 60.0, validate=_POSITIVE),
        # Two at a chunk of which nothing is known, and at least one to take it apart.
        "max_attempts": env.int("MAX_ATTEMPTS", 4, validate=Range(3)),
        "republish_after_seconds": env.float("REPUBLISH_AFTER_SECONDS", 30.0, validate=_POSITIVE),
        "rescue_interval_seconds": env.float("RESCUE_INTERVAL_SECONDS", 1.0, validate=_POSITIVE),
        # Fewer than one chunk a priority would leave the lowest without any.
        "dispatch_window": env.int("DISPATCH_WINDOW", 8, validate=Range(4)),
        "batch_window": env.int("BATCH_WINDOW", 4, validate=Range(1)),
        "team_window": env.int("TEAM_WINDOW", 0, validate=Range(0)),
        "max_backlog_customers": env.int("MAX_BACKLOG_CUSTOMERS", 100_000_000, validate=Range(1)),
        "max_open_batches": env.int("MAX_OPEN_BATCHES", 2_000, validate=Range(1)),
        "max_open_batches_of_team": env.int("MAX_OPEN_BATCHES_OF_TEAM", 500, validate=Range(0)),
        "max_rows_of_team_a_day": env.int("MAX_ROWS_OF_TEAM_A_DAY", 100_000_000, validate=Range(0)),
        "max_stored_upload_mb_of_team": env.int("MAX_STORED_UPLOAD_MB_OF_TEAM", 65_536, validate=Range(0)),
    }


def _webhooks(env: Env) -> dict[str, Any]:
    return {
        "webhook_secret": _names(env, "WEBHOOK_SECRET", validate=_are_secrets),
        "webhook_encryption_key": _names(env, "WEBHOOK_ENCRYPTION_KEY", validate=_are_keys),
        "webhook_timeout_seconds": env.float("WEBHOOK_TIMEOUT_SECONDS", 10.0, validate=Range(0, 60, min_inclusive=False)),
        "webhook_retry_attempts": env.int("WEBHOOK_RETRY_ATTEMPTS", 10, validate=Range(1, 20)),
        "webhook_allow_private": env.str("WEBHOOK_ALLOW_PRIVATE", "", validate=_are_networks),
        "webhook_allow_http": env.bool("WEBHOOK_ALLOW_HTTP", None),
        "webhook_ca_file": env.path("WEBHOOK_CA_FILE", None, validate=_is_file),
    }


def _metrics(env: Env) -> dict[str, Any]:
    return {
        "prometheus_multiproc_dir": env.str("PROMETHEUS_MULTIPROC_DIR", ""),
        "metrics_host": env.str("METRICS_HOST", _LOOPBACK),
        "metrics_port": env.int("METRICS_PORT", 0, validate=Range(0, 65_535)),
        "metrics_token": env.str("METRICS_TOKEN", "", validate=_is_token),
        "worker_metrics_host": env.str("WORKER_METRICS_HOST", _LOOPBACK),
        "worker_metrics_port": env.int("WORKER_METRICS_PORT", 0, validate=Range(0, 65_535)),
        "worker_niceness": env.int("WORKER_NICENESS", 0, validate=Range(0, 19)),
    }


def _traces(env: Env) -> dict[str, Any]:
    is_url = _begins_with(("http://", "https://"))
    return {
        "tracing_enabled": env.bool("TRACING_ENABLED", False),
        "tracing_sample_ratio": env.float("TRACING_SAMPLE_RATIO", 1.0, validate=Range(0, 1)),
        "tracing_follow_clients": env.bool("TRACING_FOLLOW_CLIENTS", False),
        "otel_exporter_otlp_endpoint": env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", validate=is_url),
        "otel_exporter_otlp_headers": env.str("OTEL_EXPORTER_OTLP_HEADERS", "", validate=_are_headers),
    }


def _testing(env: Env) -> dict[str, Any]:
    return {"failpoints": env.str("FAILPOINTS", "")}


def _names(env: Env, name: str, validate: Callable[[str], None] | None = None) -> tuple[str, ...]:
    # A value that is not valid is None here, and reported when the environment is sealed.
    return _parts(env.str(name, "", validate=validate) or "")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _are_secrets(text: str) -> None:
    """Check secrets in the form of Standard Webhooks, without echoing them."""
    for part in _parts(text):
        if not is_secret(part):
            raise ValidationError(
                f"Must be whsec_ and the base64 of {FEWEST_BYTES} to {MOST_BYTES} random bytes;"
                " several, the newest first, with commas between."
            )


def _is_long_enough(secret: str) -> None:
    if secret and len(secret.encode()) < FEWEST_SECRET_BYTES:
        raise ValidationError(f"Must be at least {FEWEST_SECRET_BYTES} bytes long (RFC 7518, 3.2).")


def _is_header_for_keys(name: str) -> None:
    if not name.replace("-", "").isalnum() or not name.isascii() or name.lower() == "authorization":
        raise ValidationError(
            "Must be a header's name of letters, digits and hyphens, and not Authorization, which is read too."
        )


def _are_origins(text: str) -> None:
    for part in _parts(text):
        if not _ORIGIN.fullmatch(part):
            raise ValidationError(f"{part!r} is no origin such as https://app.example: small letters, no path, and no *.")


def _is_token(text: str) -> None:
    if text and (len(text) < _FEWEST_TOKEN_LETTERS or not (text.isascii() and text.isprintable()) or " " in text):
        raise ValidationError(f"Must be {_FEWEST_TOKEN_LETTERS} or more letters and digits.")


def _are_keys(text: str) -> None:
    if not all(is_sealing_key(part) for part in _parts(text)):
        raise ValidationError("Must be the base64 of 32 random bytes; several, the newest first, with commas between.")


def _are_headers(text: str) -> None:
    if not all("=" in part for part in _parts(text)):
        raise ValidationError("Must be name=value; several with commas between.")


def _are_networks(text: str) -> None:
    try:
        networks_of(text)
    except ValueError as exc:
        raise ValidationError(f"Must be true, or networks such as 10.0.0.0/8 with commas between: {exc}.") from None


def _is_file(path: Path | None) -> None:
    if path is not None and not path.is_file():
        raise ValidationError("There is no such file.")


def _begins_with(schemes: tuple[str, ...]) -> Callable[[str], None]:
    """A check of a URL by its scheme that does not echo the URL: it may hold a password."""

    def check(url: str) -> None:
        if not url.startswith(schemes):
            raise ValidationError(f"Must begin with one of {', '.join(schemes)}.")

    return check


def _disagreements(values: Mapping[str, Any]) -> list[str]:
    """Values that are valid alone and not together."""
    low, medium, high = bands = [values[f"{band}_risk_threshold"] for band in ("low", "medium", "high")]
    faults = []
    if bands != [None] * 3 and (None in bands or not 0 < low < medium < high < 1):
        faults.append(
            "  LOW_RISK_THRESHOLD < MEDIUM_RISK_THRESHOLD < HIGH_RISK_THRESHOLD: set all three, in this order between 0 and 1"
        )
    for whose in ("", "worker_"):
        host, port = values[f"{whose}metrics_host"], values[f"{whose}metrics_port"]
        if port and host not in _THIS_MACHINE and not values["metrics_token"]:
            name = f"{whose.upper()}METRICS_HOST"
            faults.append(f"  {name}: {host} shows the metrics to the network; set METRICS_TOKEN, or leave it at {_LOOPBACK}")
    if values["metrics_port"] and values["metrics_port"] == values["port"]:
        faults.append("  METRICS_PORT: is PORT, at which metrics want a token; choose another, or leave it blank")
    if values["failpoints"] and values["environment"] != "testing":
        faults.append(
            f"  FAILPOINTS: breaks the product on purpose, so never with ENVIRONMENT={values['environment']}; unset it"
        )
    return faults


def _of_identities(values: Mapping[str, Any]) -> list[str]:
    """What of the keys and tokens is not valid together, or not where it matters."""
    secret, file, algorithm = values["jwt_secret_key"], values["jwt_jwks_file"], values["jwt_algorithm"]
    faults = []
    if values["environment"] not in ("development", "testing"):
        if not values["require_api_key"]:
            faults.append(f"  REQUIRE_API_KEY: only development and testing may do without, not {values['environment']}")
        if secret and is_guessable(secret):
            faults.append(
                '  JWT_SECRET_KEY: may be guessed; make one: python -c "import secrets; print(secrets.token_hex(32))"'
            )
    if secret and algorithm != "HS256":
        faults.append(f"  JWT_SECRET_KEY: is for HS256, and JWT_ALGORITHM={algorithm} takes its keys from JWT_JWKS_FILE")
    if file and algorithm == "HS256":
        faults.append("  JWT_JWKS_FILE: is for JWT_ALGORITHM=RS256 or EdDSA; HS256 takes JWT_SECRET_KEY")
    if secret or file:
        faults += [
            f"  {name}: not set. Without it, tokens that were made for others would be accepted"
            for name in ("JWT_AUDIENCE", "JWT_ISSUER")
            if not values[name.lower()]
        ]
    return faults


def _of_secrets(values: Mapping[str, Any]) -> list[str]:
    """Passwords and secrets that are no secret, where it matters; none of them is echoed."""
    if values["environment"] in ("development", "testing"):
        return []
    faults = []
    for name in ("database_url", "database_worker_url", "database_owner_url", "redis_url"):
        parts = urlsplit(values[name] or "")
        # Without a password the server goes by certificates, a file or the network; with this one anybody gets in.
        if parts.password and is_placeholder(unquote(parts.password), user=unquote(parts.username or "")):
            faults.append(f"  {name.upper()}: its password may be guessed, or is that of an example; give its role another")
    held = {
        "METRICS_TOKEN": [values["metrics_token"]],
        "WEBHOOK_SECRET": [secret.removeprefix(PREFIX) for secret in values["webhook_secret"]],
        "WEBHOOK_ENCRYPTION_KEY": values["webhook_encryption_key"],
    }
    for name, secrets in held.items():
        if any(secret and is_placeholder(secret) for secret in secrets):
            faults.append(f"  {name}: may be guessed; make a random one")
    return faults


def _explained(errors: Mapping[str, list[str]]) -> SettingsError:
    lines = ["The settings cannot be used:"]
    for name, messages in errors.items():
        said = " ".join(messages)
        if "not set" in said:
            said = "not set. Set it in the environment or in .env; or run `make up` and then `set -a; . var/env; set +a`."
        lines.append(f"  {name}: {said}")
    return SettingsError("\n".join(lines))
