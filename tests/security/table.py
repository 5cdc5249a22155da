"""The table of security: each risk, the guards against it, and for each guard the tests that hold it and fail without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.security.mutants import Mutant, instead, rewritten

MODEL_TESTS: Final = "tests/unit/scoring/test_model.py"
DOWNLOADS: Final = "tests/integration/api/test_downloads.py"


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
        "a tampered model",
        (
            Mutant(
                "checksum-of-the-trees",
                rewritten("scoring.model.load_bundle", "if model_sha256 != manifest.files[MODEL_NAME]:", "if False:"),
                (f"{MODEL_TESTS}::test_one_flipped_bit_in_the_trees_is_refused",),
            ),
        ),
    ),
    Row(
        "formulas in results",
        (
            Mutant(
                "prefix-of-formulas",
                instead("db.predictions._FORMULAS", []),
                (f"{DOWNLOADS}::TestCells::test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone[=1+1]",),
            ),
        ),
    ),
)

MUTANTS: Final = tuple(mutant for row in TABLE for mutant in row.mutants)
