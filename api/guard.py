"""CSV that a spreadsheet opens without running it (formula injection).

A cell whose text begins with = or one of some others is run as a formula when the file is opened in a spreadsheet, and a
formula can fetch addresses and start programs. Customers' ids and refused values come from whoever sent them. So an
apostrophe is put before such text, which spreadsheets take as the sign of a text. What begins with an apostrophe gets another
one, so that a reader gets the text back by one rule: drop an apostrophe that a cell begins with.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

STARTS: Final = "=+-@|%\t\r\n\uff1d\uff0b\uff0d\uff20'"
"""What begins a formula in one spreadsheet or another, the wide forms where the keyboard is Japanese; and the guard itself."""

_NUMBER: Final = r"^-[0-9]+([.][0-9]+)?$"
_SUSPECT: Final = f"^[{STARTS.replace('-', '')}-]"


def guarded(column: pa.ChunkedArray, *, numbers_stay: bool = False) -> pa.ChunkedArray:
    """Put an apostrophe before the texts of a column that need it; missing values stay missing.

    Parameters
    ----------
    numbers_stay : bool
        Whether text that is a plain negative number stays as it is.
    """
    suspect = pc.match_substring_regex(column, _SUSPECT)
    if not pc.any(suspect).as_py():
        return column
    runs = pc.and_not(suspect, pc.match_substring_regex(column, _NUMBER)) if numbers_stay else suspect
    return pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
