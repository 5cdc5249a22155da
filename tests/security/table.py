"""The table of security: each risk, the guards against it, and for each guard the tests that hold it and fail without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.security.mutants import Mutant, instead, rewritten

_API: Final = "tests/integration/api"
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


TABLE: Final = (
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
                    "if model_sha256 != manifest.files[MODEL_test_the_schema_speaks_in_codes]:",
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
