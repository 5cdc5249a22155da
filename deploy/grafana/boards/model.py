"""Whether the model is still good: what it was measured by, and what it says of today's customers."""

from __future__ import annotations

from typing import Final

from deploy.grafana import limits
from deploy.grafana.board import Board, Section
from deploy.grafana.panels import GREEN, ORANGE, RED, YELLOW, Look, Panel, Query
from deploy.grafana.promql import accuracy_of_the_champion, counted, customers_finished, per_second, share

_BANDS: Final = {"low": GREEN, "medium": YELLOW, "high": ORANGE, "critical": RED}
_DAY: Final = "1d"

_ACCURACY: Final = Panel(
    title="Is the active model good? Accuracy",
    look=Look.FIGURES,
    queries=(
        Query(
            accuracy_of_the_champion(),
            "{{model_version}}",
        ),
    ),
    shows="The area under the ROC curve of the active model, on customers held out from its training.",
    good="0.85 or more.",
    bad="below 0.85 is a warning, below 0.8 critical: go back to the model before it, then train on newer data.",
    width=6,
    height=5,
    alerts=("ModelAccuracyDrop", "ModelNotUsable"),
    decimals=3,
    limits=limits.MODEL_ACCURACY,
    no_value="no model is active",
)

_USABLE: Final = Panel(
    title="Can every worker use it?",
    look=Look.FIGURES,
    queries=(Query("min by (model_version) (churn_model_usable)", "{{model_version}}"),),
    shows="Whether every process that has tried could load, verify and use a model.",
    good="usable.",
    bad="not usable: its files are missing or altered. What needs it waits.",
    width=6,
    height=5,
    alerts=("ModelNotUsable",),
    limits=limits.MUST_BE_ONE,
    states={"1": ("usable", GREEN), "0": ("not usable", RED)},
    no_value="no worker has loaded one yet",
)

_PARITY: Final = Panel(
    title="Does the compiled engine say what LightGBM says?",
    look=Look.FIGURES,
    queries=(Query("sum by (outcome) (churn_model_parity_checks_total)", "{{outcome}}"),),
    shows="Checks at the loading of a model that hold the compiled engine to LightGBM, by outcome, since the workers' start.",
    good="passed; none where a model has no compiled engine.",
    bad="failed: that engine is not used, LightGBM scores in its place.",
    width=6,
    height=5,
    alerts=("EngineFellBack",),
    decimals=0,
    limits_by_name={"failed": limits.MUST_BE_NONE},
    no_value="none was made yet",
)

_PER_DAY: Final = Panel(
    title="Predictions in the last 24 hours",
    look=Look.FIGURES,
    queries=(Query(counted("ml_predictions_total", window=_DAY)),),
    shows="Customers scored and stored, in batches and singly.",
    good="your usual day.",
    bad="a fraction of it.",
    width=6,
    height=5,
    alerts=("StalledProgress",),
    decimals=0,
    no_value="none",
)

_MODELS: Final = Panel(
    title="Which models are there, and what state are they in?",
    look=Look.TABLE,
    queries=(
        Query(
            "max by (model_version, state) (ml_model_info) * on (model_version) group_left"
            " max by (model_version) (ml_model_accuracy)"
        ),
    ),
    shows="Registered models and their accuracy. The champion scores what names no model.",
    good="one champion, and the one before it at hand.",
    bad="no champion; a challenger that is much better.",
    width=8,
    height=7,
    alerts=("ModelAccuracyDrop",),
    decimals=3,
    limits=limits.MODEL_ACCURACY,
    value_name="accuracy",
    no_value="no model is registered",
)

_ACCURACY_THEN: Final = Panel(
    title="Accuracy of the models, over time",
    look=Look.CURVES,
    queries=(Query("max by (model_version) (ml_model_accuracy)", "{{model_version}}"),),
    shows="The same for all registered models. It changes when a model is registered: it is not measured anew on today's "
    "customers.",
    good="above 0.85.",
    bad="each new model a little worse than the one before.",
    width=8,
    height=7,
    alerts=("ModelAccuracyDrop",),
    decimals=3,
    limits=limits.MODEL_ACCURACY,
    highest=1,
)

_VERSIONS: Final = Panel(
    title="Which model scores?",
    look=Look.CURVES,
    queries=(Query(per_second("ml_predictions_total", ["model_version"]), "{{model_version}}"),),
    shows="Customers scored a second, by the model that did.",
    good="the champion, and what was asked for by name.",
    bad="an old one that still scores after an activation: batches keep the model that they were submitted for.",
    width=8,
    height=7,
    alerts=("ModelNotUsable",),
    is_stacked=True,
)

_SHARES: Final = Panel(
    title="How are customers spread over the risk bands?",
    look=Look.CURVES,
    queries=(
        Query(
            f"{per_second('ml_predictions_total', ['risk_category'], window='15m')}"
            f" / on () group_left () ({per_second('ml_predictions_total', window='15m')} > 0)",
            "{{risk_category}}",
        ),
    ),
    shows="The share of the customers scored in 15 minutes that fell into each band.",
    good="the same picture as last week, batch by batch.",
    bad="a band that swells without a reason in the business: the data changed (drift), or a column means something else now.",
    width=12,
    height=8,
    alerts=("ModelAccuracyDrop",),
    unit="percentunit",
    colours=_BANDS,
    is_stacked=True,
    highest=1,
)

_NEWLY: Final = Panel(
    title="How many customers became likely to leave? Last 24 hours",
    look=Look.CURVES,
    queries=(
        Query(
            "max by (risk_category) (increase(churn_customers_newly_at_risk_total[1d]))",
            "newly {{risk_category}}",
        ),
    ),
    shows="Customers whose risk became high or critical and was not before, over the 24 hours before each moment.",
    good="your usual number: people to be called.",
    bad="several times as many at once: an event in the market, or drift.",
    width=12,
    height=8,
    alerts=("ModelAccuracyDrop",),
    colours={"newly high": ORANGE, "newly critical": RED},
)


def _segment(feature: str, title: str) -> Panel:
    probability = counted(f'churn_segment_probability_sum_total{{feature="{feature}"}}', ["value"], window=_DAY)
    customers = counted(f'churn_segment_customers_total{{feature="{feature}"}}', ["value"], window=_DAY)
    return Panel(
        title=title,
        look=Look.BARS,
        queries=(Query(share(probability, customers), "{{value}}"),),
        shows="The mean churn probability of the customers of batches in the last 24 hours, by segment.",
        good="the order that you know from the business.",
        bad="segments that have become alike, or changed places: the model no longer tells them apart.",
        width=8,
        height=8,
        alerts=("ModelAccuracyDrop",),
        unit="percentunit",
        decimals=1,
        highest=1,
        no_value="nobody was scored",
    )


_BY_BAND: Final = Panel(
    title="Predictions in the last 24 hours, by risk",
    look=Look.BARS,
    queries=(Query(counted("ml_predictions_total", ["risk_category"], window=_DAY), "{{risk_category}}"),),
    shows="Customers scored in 24 hours, by band.",
    good="most are low.",
    bad="most are critical, or all in one band.",
    width=8,
    height=7,
    alerts=("ModelAccuracyDrop",),
    decimals=0,
    colours=_BANDS,
)

_REFUSED: Final = Panel(
    title="How many rows could not be scored?",
    look=Look.CURVES,
    queries=(
        Query(
            share(
                f"({per_second('churn_rows_failed_total', window='15m')} or vector(0))",
                customers_finished("15m"),
            ),
            "refused",
        ),
    ),
    shows="Rows refused or not scored, as a share of all rows of 15 minutes.",
    good="below one in a hundred.",
    bad="more: the source of the data changed its form. *Batches and queue* has the codes.",
    width=8,
    height=7,
    alerts=("ChunksFailing",),
    unit="percentunit",
    colours={"refused": RED},
)

_KEYS: Final = Panel(
    title="Who asks? Uses of keys by what they may do",
    look=Look.CURVES,
    queries=(
        Query(per_second("churn_api_key_uses_total", ["credential", "tenant_class"]), "{{tenant_class}} by {{credential}}"),
    ),
    shows="Requests a second by the kind of credential, and the class of what it may do; no team and no key is named.",
    good="predictors and readers do most of it.",
    bad="*none* that grows: somebody without a key tries. *admin* at night: see `churn audit`.",
    width=8,
    height=7,
    alerts=("HighErrorRate",),
    unit="reqps",
    is_stacked=True,
)

BOARD: Final = Board(
    name="model",
    title="Churn 5: is the model still good?",
    description="What the model was measured by, and what it says of today's customers.",
    sections=(
        Section("Is it good, and can it be used?", (_ACCURACY, _USABLE, _PARITY, _PER_DAY)),
        Section("Does it say what it used to say?", (_SHARES, _NEWLY)),
        Section(
            "Does it still tell customers apart?",
            (
                _segment("contract_type", "How likely to leave, by contract?"),
                _segment("internet_service", "How likely to leave, by internet service?"),
                _segment("payment_method", "How likely to leave, by way of payment?"),
            ),
        ),
        Section("Which model scores?", (_MODELS, _ACCURACY_THEN, _VERSIONS)),
        Section("Whose data, and what became of them?", (_BY_BAND, _REFUSED, _KEYS)),
    ),
)
