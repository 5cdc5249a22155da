"""Labelled customers read from CSV: the declaration's columns and `churned`, which `churn train` learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.cells import read_cells, read_customers, refuse
from scoring.features import COLUMNS, FALSE_WORDS, FEATURES, TRUE_WORDS, Code
from scoring.labelled import CHURNED, Labelled

_MAY_LACK: Final = tuple(feature.name for feature in FEATURES if feature.nullable)


def read_labelled(path: Path) -> Labelled:
    """Read a labelled CSV file: `COLUMNS` in any order and `churned`, a word for true or false.

    Columns of features that may be missing (age, income) may be absent.

    Raises
    ------
    UnreadableFile
        If it is not CSV, or a column is absent, unknown or there twice.
    DataError
        If any value is not valid: a model is never trained on the good rows of a bad file. Says line, column, value and reason.
    """
    cells = read_cells(path, (*COLUMNS, CHURNED), optional=_MAY_LACK)
    customers = read_customers(cells, {name: name for name in COLUMNS})
    words = pc.utf8_lower(pc.utf8_trim_whitespace(cells.column(CHURNED)))
    left = pc.is_in(words, value_set=pa.array(sorted(TRUE_WORDS))).to_numpy()
    stayed = pc.is_in(words, value_set=pa.array(sorted(FALSE_WORDS))).to_numpy()
    refuse(cells, CHURNED, ~(left | stayed), Code.NOT_ALLOWED)
    return Labelled(customers, np.asarray(left, dtype=np.bool_))
