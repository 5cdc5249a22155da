"""The table of security: each risk, the guards against it, and for each guard the tests that hold it and fail without it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from deploy.local.valkey import Valkey
from schemas.targets import TargetRefused
from tests.security.mutants import Mutant, both, instead, rewritten, rewritten_script
from workers.outgoing import NoAnswer

_API: Final = "tests/integration/api"
_ACCESS: Final = f"{_API}/test_access.py"
_KEYS: Final = f"{_API}/test_keys.py"
_ROLES: Final = "tests/integration/db/test_roles.py"
_TOKENS: Final = "tests/unit/api/test_tokens.py"
_CONNECTIONS: Final = "tests/unit/api/test_connections.py"
_STREAMS: Final = "tests/unit/intake/test_streams.py"
_PARQUET: Final = "tests/unit/intake/test_parquet.py"
_CHILD: Final = "intake.parquet_child"
_ALLOWANCE: Final = f"{_API}/test_allowance.py"
_TURNS: Final = f"{_API}/test_turns.py"
_BUNDLES: Final = "tests/unit/scoring/test_model.py"
_FLOWER: Final = "tests/unit/deploy/test_flowerconfig.py"
HEADERS: Final = "tests/unit/api/test_headers.py"
HOSTS: Final = f"{HEADERS}::TestHosts"
TARGETS: Final = "tests/unit/schemas/test_targets.py"
TARGETS_API: Final = "tests/integration/api/test_webhook_targets.py"
PINNED: Final = "tests/unit/workers/test_pinned.py"
OUTGOING: Final = "tests/unit/workers/test_outgoing.py"
SENDING: Final = "workers.pinned._Pinned.handle_async_request"
DOWNLOADS: Final = f"{_API}/test_downloads.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One risk.

    Attributes
    ----------
    risk : str
        As docs/security.md names it.
    mutants : tuple of Mutant
        The product without each of the guards against it.
    """

    risk: str
    mutants: tuple[Mutant, ...]


_SEES_ALL: Final = rewritten("db.sight._show", "(wanted,)", "('*',)")
"""Row-level security stands behind the teams' queries, and would hide that one of them forgot its team."""

TABLE: Final = (
    Row(
        "another team's objects",
        (
            Mutant(
                "team-of-a-batch",
                both(
                    _SEES_ALL,
                    rewritten(
                        "db.batches.get_own_batch",
                        "_GET_OWN.rows(conn, batch_id=batch_id, team=team)",
                        "_GET.rows(conn, batch_id=batch_id)",
                    ),
                ),
                (f"{_ACCESS}::test_every_object_of_another_team_is_404",),
            ),
            Mutant(
                "team-of-a-single-prediction",
                both(_SEES_ALL, rewritten("db.requests.get_request", '"team": team', '"team": "default"')),
                (f"{_ACCESS}::test_every_object_of_another_team_is_404",),
            ),
            Mutant(
                "team-of-a-delivery",
                both(_SEES_ALL, rewritten("db.deliveries.get_delivery", '"team": team', '"team": "default"')),
                (f"{_ACCESS}::test_every_object_of_another_team_is_404",),
            ),
            Mutant(
                "team-of-a-webhook",
                both(_SEES_ALL, rewritten("db.webhooks.get_endpoint", '"team": team', '"team": "default"')),
                (f"{_ACCESS}::test_every_object_of_another_team_is_404",),
            ),
        ),
    ),
    Row(
        "scopes",
        (
            Mutant(
                "key-on-every-route",
                rewritten("api.auth._is_open", "request.endpoint is None or", "True or"),
                (f"{_ACCESS}::test_every_route_without_a_key_is_401",),
            ),
            Mutant(
                "scope-of-a-route",
                rewritten("api.auth.Guard.authorise", "if needed not in caller().scopes:", "if False:"),
                (f"{_ACCESS}::test_every_route_with_every_scope_but_its_own_is_403",),
            ),
            Mutant(
                "every-route-has-one",
                rewritten("api.access.check_routes", "if faults:", "if False:"),
                ("tests/unit/api/test_access.py::test_a_route_without_a_scope_is_refused",),
            ),
        ),
    ),
    Row(
        "API keys",
        (
            Mutant(
                "digest-of-a-key",
                rewritten("api.auth._bearer_of", "if known is None or not is_right:", "if known is None:"),
                (f"{_KEYS}::test_a_wrong_secret_is_told_no_more_than_an_unknown_key",),
            ),
            Mutant(
                "revoked-at-once",
                rewritten("api.auth._bearer_of", "if known.is_revoked:", "if False:"),
                (f"{_KEYS}::test_a_revoked_key_is_refused_by_the_very_next_request",),
            ),
            Mutant(
                "expiry-of-a-key",
                rewritten("api.auth._bearer_of", "if known.is_expired:", "if False:"),
                (f"{_KEYS}::test_both_keys_work_while_one_replaces_the_other",),
            ),
            Mutant(
                "no-secret-kept",
                instead("schemas.key_text.KeyText.sha256", property(lambda key: key.secret.encode())),
                ("tests/integration/db/test_keys.py::test_a_dump_holds_no_secret",),
                by=(IntegrityError,),  # its column takes a digest of 32 bytes alone
            ),
        ),
    ),
    Row(
        "JWT",
        (
            Mutant(
                "one-algorithm",
                rewritten(
                    "api.tokens.Tokens._claims",
                    "algorithms=[self._algorithm]",
                    'algorithms=["RS256", "RS384", "RS512", "PS256"]',
                ),
                (f"{_TOKENS}::test_only_the_one_algorithm_is_taken_even_with_the_right_key",),
            ),
            Mutant(
                "signature",
                rewritten("api.tokens.Tokens._claims", 'options={"require"', 'options={"verify_signature": False, "require"'),
                (f"{_TOKENS}::test_a_strangers_signature_is_refused",),
            ),
            Mutant(
                "headers-that-bring-keys",
                instead("api.tokens._STRANGE", frozenset()),
                (f"{_TOKENS}::test_a_header_that_brings_its_own_key_or_rules_is_refused[jku]",),
            ),
            Mutant(
                "audience",
                rewritten(
                    "api.tokens.Tokens._claims", "audience=self._audience", 'audience=["billing", "crm", self._audience]'
                ),
                (f"{_TOKENS}::test_claims_that_are_not_for_us_are_refused[changed0-another audience]",),
            ),
            Mutant(
                "issuer",
                rewritten("api.tokens.Tokens._claims", "issuer=self._issuer", "issuer=None"),
                (f"{_TOKENS}::test_claims_that_are_not_for_us_are_refused[changed2-another issuer]",),
            ),
        ),
    ),
    Row(
        "fields that are not for clients",
        (
            Mutant(
                "unknown-members",
                instead("schemas.customer.CustomerSchema.opts.unknown", "exclude"),
                ("tests/unit/schemas/test_customer.py::test_the_schema_speaks_in_codes",),
            ),
        ),
    ),
    Row(
        "use of resources",
        (
            Mutant(
                "size-of-a-body",
                rewritten(
                    "api.bodies._Spool.read",
                    "    if (request.content_length or 0) > self._limit_bytes:\n"
                    "        raise BodyTooLarge.of(self._limit_bytes)\n",
                    "    self._limit_bytes <<= 1\n",
                ),
                (f"{_API}/test_submit.py::TestRefusals::test_a_body_one_byte_above_its_limit",),
            ),
            Mutant(
                "requests-a-minute",
                rewritten("api.limits._check", "if not standing.is_within:", "if False:"),
                (f"{_API}/test_limits.py::TestRequests::test_the_last_one_passes_and_the_next_is_told_when_to_come_back",),
            ),
            Mutant(
                "bodies-that-nobody-reads",
                rewritten("api.connections.BoundedWorker._keepalive_after", "GRACE_S", "5.0"),
                (f"{_CONNECTIONS}::TestUnreadBodies::test_what_does_not_come_at_once_is_not_waited_for",),
            ),
            Mutant(
                "rate-of-an-answer",
                rewritten(
                    "api.waiting.ClientSocket.begin_head",
                    "_Account(self._patience.body_s, self._patience.rate, SlowReader",
                    "_Account(inf, self._patience.rate, SlowReader",
                ),
                (f"{_CONNECTIONS}::TestAnswers::test_one_that_is_taken_below_the_rate_is_given_up",),
            ),
            Mutant(
                "threads-left-by-slow-clients",
                rewritten("api.holding.Holding.take", "if self._n_held >= max(1, self._n_threads - leaving):", "if False:"),
                (f"{_CONNECTIONS}::TestSlowBodies::test_some_threads_are_left_whoever_holds_the_others",),
            ),
            Mutant(
                "time-of-a-json-body",
                rewritten("api.bodies._Spool.read", "if time.monotonic() > self._ends:", "if False:"),
                (f"{_API}/test_hostile_bodies.py::TestTime::test_a_json_body_that_takes_too_long_as_a_whole_is_refused",),
            ),
            Mutant(
                "submits-a-minute",
                rewritten("api.limits._Limits.count", "if self.batches is not None and", "if False and"),
                (f"{_API}/test_limits.py::TestBatches::test_submits_have_a_quota_of_their_own",),
            ),
            Mutant(
                "open-batches-of-a-team",
                rewritten("api.allowance.check_batch", "if most and", "if False and"),
                (f"{_ALLOWANCE}::test_one_open_batch_more_is_refused_until_one_has_ended",),
            ),
            Mutant(
                "rows-of-a-day",
                rewritten("api.allowance.check_rows", "if most and", "if False and"),
                (f"{_ALLOWANCE}::test_rows_of_a_day_are_counted_to_the_last",),
            ),
            Mutant(
                "rows-of-a-day-in-files",
                rewritten("workers.plan._check_rows_of_day", "if most and", "if False and"),
                ("tests/integration/workers/test_allowance.py::test_an_upload_is_held_to_its_team_s_day[24-failed]",),
            ),
            Mutant(
                "imported-rows-count",
                rewritten("db.allowance.count_import", 'conn.execute(_COUNT_IMPORT, {"team": team, "n_rows": n_rows})', "pass"),
                (f"{_ALLOWANCE}::test_imported_rows_count_with_those_of_batches",),
            ),
            Mutant(
                "imports-are-counted-alone",
                rewritten("db.allowance.count_import", 'conn.execute(_LOCK, {"team": team})', "pass"),
                ("tests/integration/db/test_allowance.py::test_a_batch_waits_for_an_import_at_the_same_time",),
            ),
            Mutant(
                "imports-are-checked-when-counted",
                rewritten(
                    "api.customers._import", "check_rows(settings, count_import(conn, team, tally.total), more=0)", "pass"
                ),
                (f"{_ALLOWANCE}::test_what_another_process_has_imported_meanwhile_counts",),
            ),
            Mutant(
                "uploads-that-wait",
                rewritten("api.allowance.check_upload", "if most and", "if False and"),
                (f"{_ALLOWANCE}::test_uploads_that_wait_are_bounded_until_one_is_gone",),
            ),
            Mutant(
                "one-import-of-a-team",
                rewritten("api.turns.Turns._take", "if team in self._teams:", "if False:"),
                (f"{_TURNS}::test_a_team_has_one_at_a_time_and_may_submit_meanwhile[/customers:import]",),
            ),
            Mutant(
                "imports-at-once",
                rewritten("api.turns.Turns._take", "if len(self._teams) >= self._most:", "if False:"),
                (f"{_TURNS}::test_a_process_reads_so_many_at_once_and_says_when_to_come_back",),
            ),
            Mutant(
                "rows-of-an-import",
                rewritten(
                    "settings.Settings.of_imports", "min(self.max_batch_rows, self.max_import_rows)", "self.max_batch_rows"
                ),
                (
                    f"{_TURNS}::TestSizes::test_so_many_rows_are_read_and_one_more_is_for_a_batch",
                    f"{_TURNS}::TestSizes::test_rows_of_a_json_body_are_counted_too",
                ),
            ),
            Mutant(
                "size-of-an-import",
                rewritten(
                    "settings.Settings.of_imports",
                    "min(self.max_request_size_mb, self.max_import_size_mb)",
                    "self.max_request_size_mb",
                ),
                (f"{_TURNS}::TestSizes::test_bytes_are_bounded_as_sent_and_decompressed",),
            ),
            Mutant(
                "decompressed-size-of-an-import",
                rewritten(
                    "settings.Settings.of_imports",
                    "min(self.max_decompressed_size_mb, self.max_import_size_mb)",
                    "self.max_decompressed_size_mb",
                ),
                (f"{_TURNS}::TestSizes::test_bytes_are_bounded_as_sent_and_decompressed",),
            ),
            Mutant(
                "decoders-at-once",
                rewritten("api.reading._decoder", "if upload.media_type != PARQUET:", "if True:"),
                (f"{_TURNS}::TestDecoders::test_a_small_parquet_file_is_left_to_a_worker_while_all_are_busy",),
            ),
            Mutant(
                "webhooks-of-a-team",
                rewritten("db.webhooks.lock_endpoints", 'conn.execute(_LOCK, {"team": team})', "pass"),
                (f"{_API}/test_webhooks.py::TestReceivers::test_the_last_place_is_not_taken_twice_at_one_moment",),
            ),
        ),
    ),
    Row(
        "bombs",
        (
            Mutant(
                "size-once-decompressed",
                rewritten("intake.streams.refuse_above", "if n_bytes > limit:", "if False:"),
                (
                    f"{_STREAMS}::test_a_bomb_is_refused_at_its_bound[text/csv]",
                    f"{_STREAMS}::test_a_bomb_of_empty_gzip_files_within_gzip_is_refused",
                ),
            ),
            Mutant(
                "rows-of-a-batch",
                rewritten("intake.read._refuse_above", "if n_rows > limits.max_rows:", "if False:"),
                (
                    "tests/unit/intake/test_read.py::test_more_rows_than_allowed_are_refused",
                    "tests/unit/intake/test_csv.py::test_more_rows_than_allowed_are_refused",
                ),
            ),
            Mutant(
                "columns-of-a-file",
                rewritten("intake.header.check_columns", "if len(columns) > MAX_COLUMNS:", "if False:"),
                (
                    "tests/unit/intake/test_csv.py::test_more_columns_than_anybody_needs_are_refused_as_such[1001-too_many_columns]",
                ),
            ),
            Mutant(
                "length-of-a-csv-record",
                rewritten("intake.delimited._open", "block_size=limits.max_row_bytes", "block_size=1 << 26"),
                ("tests/unit/intake/test_csv.py::test_a_cell_of_ten_megabytes_is_refused",),
            ),
            Mutant(
                "length-of-a-line",
                rewritten("intake.ndjson._blocks", "if len(kept) > limits.max_row_bytes:", "if False:"),
                ("tests/unit/intake/test_ndjson.py::test_a_line_of_ten_megabytes_is_refused",),
            ),
            Mutant(
                "values-of-a-json-body",
                rewritten("api.bodies._refuse_values", "if len(content) > most and", "if False and"),
                (f"{_API}/test_hostile_bodies.py::TestValues::test_as_many_as_allowed_are_read_and_one_more_is_not",),
            ),
            Mutant(
                "footer-of-a-parquet-file",
                rewritten_script(_CHILD, "        _check_footer(file.metadata, max_rows, max_bytes)\n", ""),
                (
                    f"{_PARQUET}::test_a_footer_that_claims_too_many_rows_is_refused_before_reading",
                    f"{_PARQUET}::test_a_footer_that_claims_too_many_bytes_is_refused_before_reading",
                    f"{_PARQUET}::test_a_footer_whose_row_counts_do_not_add_up_is_refused",
                ),
            ),
            Mutant(
                "memory-of-a-parquet-child",
                rewritten_script(_CHILD, "    _limit(memory_bytes)\n", ""),
                (f"{_PARQUET}::test_a_bomb_meets_the_limits_of_its_own_process[402653184-decompressed_too_large]",),
            ),
            Mutant(
                "environment-of-a-child",
                rewritten(
                    "intake.children.environment", "for name in KEPT_VARIABLES if name in os.environ", "for name in os.environ"
                ),
                (
                    f"{_PARQUET}::test_the_decoding_process_knows_no_setting_of_ours",
                    f"{_API}/test_early.py::test_the_processes_know_no_password",
                ),
            ),
        ),
    ),
    Row(
        "formulas in results",
        (
            Mutant(
                "prefix-of-formulas",
                instead("api.downloads.STARTS", ""),
                (f"{DOWNLOADS}::TestCells::test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone[=1+1]",),
            ),
            Mutant(
                "prefix-of-refused-values",
                instead("api.downloads.guarded", lambda column, **_: column),
                (f"{DOWNLOADS}::TestErrors::test_a_value_that_is_a_formula_is_disarmed",),
            ),
            Mutant(
                "prefix-of-the-prefix",
                instead("api.guard._SUSPECT", "^[-=+@|%\t\r\n]"),
                (f"{DOWNLOADS}::TestCells::test_ids_are_guarded_in_csv_alone_and_can_be_had_back[ids1]",),
            ),
        ),
    ),
    Row(
        "a tampered model",
        (
            Mutant(
                "checksum-of-the-trees",
                rewritten(
                    "scoring.model.load_bundle",
                    "if model_sha256 != manifest.files[MODEL_NAME]:",
                    "if False:",
                ),
                (f"{_BUNDLES}::test_one_flipped_bit_in_the_trees_is_refused",),
            ),
            Mutant(
                "checksum-of-the-manifest",
                rewritten(
                    "scoring.model.load_bundle", "if expected_sha256 is not None and sha256 != expected_sha256:", "if False:"
                ),
                (f"{_BUNDLES}::test_a_changed_manifest_is_not_the_registered_bundle",),
            ),
            Mutant(
                "altered-compiled-file",
                rewritten("scoring.compiled.choose_engine", " or exc.code == ALTERED", ""),
                (
                    "tests/integration/workers/test_model_files.py::test_a_flipped_byte_stops_the_model_until_it_is_mended[middle-compiled]",
                ),
            ),
        ),
    ),
    Row(
        "another team's rows",
        (
            Mutant(
                "row-level-security",
                _SEES_ALL,
                (
                    f"{_API}/test_sight.py::test_no_object_of_another_team_is_shown_or_changed",
                    f"{_API}/test_sight.py::test_no_list_holds_another_team_s",
                ),
            ),
            Mutant(
                "no-team-left-behind",
                rewritten("db.sight._show", "if wanted is None or", "if not wanted or"),
                ("tests/integration/db/test_sight.py::test_the_same_connection_never_keeps_a_team_for_the_next_caller",),
            ),
        ),
    ),
    Row(
        "acts without a record",
        (
            Mutant(
                "record-of-acts",
                instead("api.models.audit", lambda *_, **__: None),
                (f"{_API}/test_audit.py::test_each_act_is_recorded_once[of_models]",),
            ),
        ),
    ),
    Row(
        "SSRF by webhook",
        (
            Mutant(
                "checked-when-given",
                rewritten("api.targets.check_target", "targets.check_addresses(", "list("),
                (f"{TARGETS_API}::test_what_lies_inside_is_refused[http://127.0.0.1/]",),
            ),
            Mutant(
                "checked-when-sent",
                rewritten(SENDING, "self._targets.check_addresses(addresses)", "pass"),
                (f"{PINNED}::test_a_name_that_leads_elsewhere_a_moment_later_is_not_followed",),
            ),
            Mutant(
                "pinned-address",
                rewritten(SENDING, "url.copy_with(host=address)", "url"),
                (f"{PINNED}::test_a_name_that_leads_elsewhere_a_moment_later_is_not_followed",),
            ),
            Mutant(
                "every-address",
                rewritten("schemas.targets.Targets.check_addresses", "not all(", "not any("),
                (f"{TARGETS}::test_any_other_is_refused_and_all_in_the_same_words[10.0.0.1]",),
            ),
            Mutant(
                "addresses-in-disguise",
                instead("schemas.targets._meant", lambda address: address),
                (f"{TARGETS}::test_a_global_address_is_allowed[64:ff9b::808:808]",),
                by=(TargetRefused,),
            ),
            Mutant(
                "metadata-services",
                instead("schemas.targets._METADATA", frozenset()),
                (f"{TARGETS}::test_any_other_is_refused_and_all_in_the_same_words[168.63.129.16]",),
            ),
            Mutant(
                "one-reading-of-a-host",
                instead("schemas.targets._NUMERIC", re.compile("(?!)")),
                (f"{TARGETS}::test_a_host_that_parsers_may_read_differently_is_refused[http://2130706433/]",),
            ),
            Mutant(
                "https-only",
                rewritten("schemas.targets.Targets.check_scheme", 'scheme != "https"', "False"),
                (f"{PINNED}::test_plain_http_is_not_spoken_where_that_is_the_rule",),
            ),
            Mutant(
                "name-of-the-certificate",
                rewritten(SENDING, "url.host.removesuffix", '"other.test".removesuffix'),
                (f"{PINNED}::test_the_certificate_must_name_the_receiver_and_not_its_address",),
                by=(NoAnswer,),
            ),
            Mutant(
                "no-redirects",
                rewritten("workers.outgoing._post", "follow_redirects=False", "follow_redirects=True"),
                (f"{OUTGOING}::test_a_redirect_is_not_followed",),
            ),
            Mutant(
                "bounded-answer",
                rewritten("workers.outgoing._read_some", "read >= MAX_ANSWER_BYTES", "False"),
                (f"{OUTGOING}::test_an_answer_without_end_is_read_to_the_bound_and_no_further",),
            ),
            Mutant(
                "words-of-our-own",
                instead("workers.outgoing._said_of", str),
                (f"{OUTGOING}::test_what_another_service_says_is_not_passed_on",),
            ),
            Mutant(
                "sealed-secrets",
                rewritten("schemas.secrets.Vault.seal", "if self._fernet is None", "if True"),
                ("tests/unit/schemas/test_secrets.py::test_a_sealed_secret_shows_nothing_and_is_another_each_time",),
            ),
        ),
    ),
    Row(
        "headers, origins and hosts",
        (
            Mutant(
                "headers-of-every-answer",
                instead("api.headers._EVERYWHERE", {}),
                (f"{HEADERS}::test_every_route_answers_every_method_with_them",),
            ),
            Mutant(
                "origins-that-are-listed",
                rewritten("api.headers.register_headers", "if origin in origins:", "if origin:"),
                (f"{HEADERS}::TestOrigins::test_any_other_page_may_not[https://evil.example]",),
            ),
            Mutant(
                "hosts-that-are-ours",
                rewritten("api.doors.register_doors", "if trusted and not", "if False and not"),
                (f"{HEADERS}::TestHosts::test_another_name_is_refused[evil.example-400]",),
            ),
            Mutant(
                "proxies-that-are-ours",
                rewritten("api.doors.register_doors", "n = settings.trusted_proxies", "n = 2"),
                (f"{HOSTS}::test_a_forwarded_name_counts_if_a_proxy_of_ours_says_it[1-api.example, evil.example-400]",),
            ),
        ),
    ),
    Row(
        "metrics and Flower",
        (
            Mutant(
                "token-of-the-api",
                instead("api.doors.has_metrics_token", lambda _: True),
                (f"{HEADERS}::TestMetricsDoor::test_the_token_opens_and_nothing_else[/metrics]",),
            ),
            Mutant(
                "metrics-port-shows-no-more",
                rewritten("api.doors.register_doors", "if request.endpoint != METRICS_ENDPOINT:", "if False:"),
                (f"{HEADERS}::TestMetricsDoor::test_the_port_of_metrics_shows_nothing_else",),
            ),
            Mutant(
                "port-as-the-server-knows-it",
                instead("api.doors._BEFORE_PROXIES", "none"),
                (f"{HEADERS}::TestMetricsDoor::test_no_header_leads_to_that_port",),
            ),
            Mutant(
                "token-of-a-worker",
                instead("workers.scrape._shows", lambda *_: True),
                ("tests/unit/workers/test_scrape.py::test_without_the_token_nothing_is_shown",),
            ),
            Mutant(
                "token-on-the-network",
                instead("settings._THIS_MACHINE", frozenset({"0.0.0.0"})),  # noqa: S104 - not bound
                ("tests/unit/test_settings.py::test_metrics_on_the_network_want_a_token",),
            ),
            Mutant(
                "who-signs-in-to-flower",
                instead("deploy.flower.login._addresses", lambda pattern: pattern),
                (f"{_FLOWER}::TestLogin::test_a_pattern_that_lets_everybody_in_is_refused",),
            ),
            Mutant(
                "history-of-flower-alone",
                instead("deploy.flower.history._OTHERS_WRITE", 0),
                (
                    f"{_FLOWER}::TestHistory::test_a_folder_into_which_others_write_is_refused",
                    f"{_FLOWER}::TestHistory::test_so_is_a_file_that_others_write_or_that_is_elsewhere",
                ),
            ),
            Mutant(
                "arguments-of-tasks",
                instead("workers.request.HintRequest.argsrepr", property(lambda request: request._argsrepr)),
                ("tests/unit/workers/test_request.py::test_arguments_are_told_nowhere",),
            ),
            Mutant(
                "failures-of-tasks-without-text",
                instead("workers.request.without_text", lambda exception: exception),
                ("tests/unit/workers/test_request.py::test_a_failure_is_told_by_type_and_frames",),
            ),
        ),
    ),
    Row(
        "default secrets",
        (
            Mutant(
                "secret-of-tokens",
                instead("settings.is_guessable", lambda _: False),
                ("tests/unit/test_settings.py::test_production_refuses_a_secret_that_may_be_guessed",),
            ),
            Mutant(
                "passwords-and-tokens",
                instead("settings.is_placeholder", lambda *_, **__: False),
                ("tests/unit/test_settings.py::test_where_it_matters_no_secret_may_be_an_example_s",),
            ),
            Mutant(
                "password-of-flower",
                instead("deploy.flower.login.is_placeholder", lambda *_, **__: False),
                (f"{_FLOWER}::TestLogin::test_in_production_flower_refuses_a_password_that_may_be_guessed",),
            ),
            Mutant(
                "length-of-a-key",
                instead("api.tokens._FEWEST_RSA_BITS", 0),
                (f"{_TOKENS}::test_a_short_rsa_key_stops_the_start",),
            ),
        ),
    ),
    Row(
        "Redis and Postgres",
        (
            Mutant(
                "commands-of-redis",
                instead("deploy.local.valkey.Valkey.user_url", Valkey.url),
                ("tests/integration/test_redis_user.py::test_it_may_not[CONFIG GET maxmemory]",),
            ),
            Mutant(
                "rights-given-by-hand",
                instead("db.roles._take_all", lambda *_: None),
                (f"{_ROLES}::TestGranting::test_it_takes_away_what_was_given_by_hand",),
            ),
            Mutant(
                "a-role-each",
                rewritten("db.roles.grant", "if len(set(names.values())) < len(names):", "if False:"),
                (f"{_ROLES}::TestGranting::test_one_role_for_both_is_refused",),
                by=(IntegrityError,),
            ),
        ),
    ),
    Row(
        "personal data in logs",
        (
            Mutant(
                "stacks-without-text",
                rewritten("logs._stack_without_text", "type(error).__name__", "repr(error)"),
                ("tests/unit/test_logs.py::test_our_own_line_has_type_and_stack",),
            ),
            Mutant(
                "fixed-words-of-libraries",
                rewritten("logs._fixed_words", 'event["event"] = str(record.msg)', "pass"),
                ("tests/unit/test_logs.py::test_a_librarys_line_about_an_exception_is_cut_to_its_fixed_words",),
            ),
            Mutant(
                "urls-of-receivers",
                rewritten("logs.logging_config", '"httpx": {"level": "WARNING"},', ""),
                ("tests/unit/test_logs.py::test_the_urls_of_receivers_are_not_written_down",),
            ),
            Mutant(
                "first-line-of-the-driver",
                rewritten("db.engine._away", 'next(iter(str(error).strip().splitlines()), "lost")', "str(error)"),
                ("tests/integration/workers/test_words.py::test_a_row_that_postgres_was_reading_when_it_was_cut_off",),
            ),
        ),
    ),
)

MUTANTS: Final = tuple(mutant for row in TABLE for mutant in row.mutants)
