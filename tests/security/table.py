"""The table of security: each risk, the guards against it, and for each guard the tests that hold it and fail without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from tests.security.mutants import Mutant, both, instead, rewritten

_API: Final = "tests/integration/api"
_ACCESS: Final = f"{_API}/test_access.py"
_KEYS: Final = f"{_API}/test_keys.py"
_TOKENS: Final = "tests/unit/api/test_tokens.py"
_STREAMS: Final = "tests/unit/intake/test_streams.py"
_BUNDLES: Final = "tests/unit/scoring/test_model.py"


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
                    "api.bodies._spool",
                    "    if (request.content_length or 0) > limit_bytes:\n        raise BodyTooLarge.of(limit_bytes)\n",
                    "    limit_bytes <<= 1\n",
                ),
                (f"{_API}/test_submit.py::TestRefusals::test_a_body_one_byte_above_its_limit",),
            ),
            Mutant(
                "requests-a-minute",
                rewritten("api.limits._check", "if not standing.is_within:", "if False:"),
                (f"{_API}/test_limits.py::TestRequests::test_the_last_one_passes_and_the_next_is_told_when_to_come_back",),
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
        ),
    ),
    Row(
        "formulas in results",
        (
            Mutant(
                "prefix-of-formulas",
                instead("db.predictions._FORMULAS", []),
                (
                    f"{_API}/test_downloads.py::TestCells::test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone[=1+1]",
                ),
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
        "headers",
        (
            Mutant(
                "headers-on-every-answer",
                instead("api.app.register_headers", lambda *_: None),
                ("tests/unit/api/test_shell.py::test_every_answer_carries_the_security_headers",),
                by=(KeyError,),
            ),
        ),
    ),
)

MUTANTS: Final = tuple(mutant for row in TABLE for mutant in row.mutants)
