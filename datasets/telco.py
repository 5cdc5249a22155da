"""The public IBM Telco Customer Churn file, read into the customer shape.

The file has no age and no income (both become missing) and six columns that our customers lack and that are left out:
SeniorCitizen, Partner, Dependents, MultipleLines, OnlineSecurity and OnlineBackup. "No internet service" and "No phone service"
mean No, and TotalCharges is blank for the 11 customers of tenure 0, who have paid nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.cells import read_cells, read_customers, refuse
from scoring.features import CUSTOMER_ID, FEATURES, Code, Kind
from scoring.labelled import Labelled

SOURCES: Final[Mapping[str, str]] = {
    CUSTOMER_ID: "customerID",
    "gender": "gender",
    "tenure_months": "tenure",
    "monthly_charges": "MonthlyCharges",
    "total_charges": "TotalCharges",
    "phone_service": "PhoneService",
    "internet_service": "InternetService",
    "streaming_tv": "StreamingTV",
    "streaming_movies": "StreamingMovies",
    "tech_support": "TechSupport",
    "device_protection": "DeviceProtection",
    "contract_type": "Contract",
    "paperless_billing": "PaperlessBilling",
    "payment_method": "PaymentMethod",
}
"""The file's column of each of our columns; a feature that is not here is missing in every row."""

LABEL: Final = "Churn"
_WITHOUT_SERVICE: Final = r"^No (internet|phone) service$"


def read_telco(path: Path) -> Labelled:
    """Read the telco file.

    Returns
    -------
    Labelled
        The customers with their outcome, in the file's order.

    Raises
    ------
    UnreadableFile
        If it is not CSV, or a column of the telco file is absent.
    DataError
        If it holds a value that no customer may have; says line, column, value and reason.
    """
    cells = read_cells(path, (*SOURCES.values(), LABEL), others=True)
    labels = cells.column(LABEL)
    left = pc.equal(labels, "Yes").to_numpy()
    refuse(cells, LABEL, ~left & ~pc.equal(labels, "No").to_numpy(), Code.NOT_ALLOWED)
    return Labelled(read_customers(_plain(cells), SOURCES), np.asarray(left, dtype=np.bool_))


def _plain(cells: pa.Table) -> pa.Table:
    """The cells with the file's own ways of speaking put into the words that customers have."""
    for feature in FEATURES:
        if feature.kind is Kind.BOOLEAN:
            source = SOURCES[feature.name]
            cells = _replaced(cells, source, pc.replace_substring_regex(cells.column(source), _WITHOUT_SERVICE, "No"))
    total = SOURCES["total_charges"]
    nothing_yet = pc.and_(
        pc.equal(pc.utf8_trim_whitespace(cells.column(total)), ""), pc.equal(cells.column(SOURCES["tenure_months"]), "0")
    )
    return _replaced(cells, total, pc.if_else(nothing_yet, "0", cells.column(total)))


def _replaced(cells: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return cells.set_column(cells.column_names.index(name), name, column)
