"""The first look: is the service well, do jobs flow, which alerts fire, are the promises kept."""

from __future__ import annotations

from typing import Final

from deploy.grafana import limits
from deploy.grafana.board import Board, Section
from deploy.grafana.panels import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Look, Panel, Query
from deploy.grafana.promql import (
    OF_CLIENTS,
    accuracy_of_the_champion,
    added,
    answer_seconds,
    counted,
    late_batches,
    late_predictions,
    per_second,
    seconds_for_all_that_waits,
    seen_by_the_api,
    share,
)

_REQUESTS: Final = Panel(
    title="Request rate: what is asked?",
    look=Look.CURVES,
    queries=(
        Query(per_second(f'ml_api_requests_total{{{OF_CLIENTS}, status=~"2..|3.."}}'), "answered"),
        Query(per_second(f'ml_api_requests_total{{{OF_CLIENTS}, status=~"4.."}}'), "refused (4xx)"),
        Query(per_second(f'ml_api_requests_total{{{OF_CLIENTS}, status=~"5.."}}'), "failed (5xx)"),
    ),
    shows="Requests a second that clients make of the API, by how they were answered. Probes and scrapes are not counted.",
    good="the usual rhythm of your clients, nearly all of it answered.",
    bad="nothing where something always comes (the API is away, or what stands before it); a step upwards; refused requests, "
    "which a client with a revoked key or used-up quota makes.",
    width=6,
    height=8,
    alerts=("ApiDown",),
    unit="reqps",
    colours={"answered": GREEN, "refused (4xx)": YELLOW, "failed (5xx)": RED},
    is_stacked=True,
)

_RESPONSE_TIME: Final = Panel(
    title="Response time: how long do answers take?",
    look=Look.CURVES,
    queries=(
        Query(answer_seconds(0.5), "half are faster than"),
        Query(answer_seconds(0.95), "95 % are faster than"),
        Query(answer_seconds(0.99), "99 % are faster than"),
    ),
    shows="Seconds until the first byte of an answer. Routes that wait on purpose (long polls, event streams) or move files "
    "are left out.",
    good="95 % well below half a second.",
    bad="95 % above 0.5 s is a warning, above 1 s critical: see Postgres (slow queries, connections), then the CPU.",
    width=6,
    height=8,
    alerts=("HighResponseTime",),
    unit="s",
    limits=limits.RESPONSE_SECONDS,
    colours={"half are faster than": BLUE, "95 % are faster than": ORANGE, "99 % are faster than": PURPLE},
)

_ERROR_RATE: Final = Panel(
    title="Error rate: how many requests fail?",
    look=Look.CURVES,
    queries=(
        Query(
            share(
                f'({per_second(f"""ml_api_requests_total{{{OF_CLIENTS}, status=~"5.."}}""", window="5m")} or vector(0))',
                per_second(f"ml_api_requests_total{{{OF_CLIENTS}}}", window="5m"),
            ),
            "failed (5xx)",
        ),
    ),
    shows="The share of requests of the last five minutes that were answered with 5xx. What a client did wrong (4xx) is not "
    "counted.",
    good="zero.",
    bad="above 1 % is a warning, above 5 % critical. 503 says that Postgres is away or too much waits; 500 is a bug, and in "
    "the log.",
    width=6,
    height=8,
    alerts=("HighErrorRate",),
    unit="percentunit",
    limits=limits.ERROR_RATE,
    colours={"failed (5xx)": RED},
)

_PREDICTIONS: Final = Panel(
    title="Predictions per second: what is scored?",
    look=Look.CURVES,
    queries=(
        Query(per_second("ml_predictions_total", ["source"]), "{{source}}"),
        Query(per_second("churn_rows_failed_total"), "rows refused"),
    ),
    shows="Customers scored and stored a second, in batches and singly, and rows that were refused.",
    good="thousands a second while batches run, nearly nothing refused.",
    bad="nothing while chunks wait (below); many refused rows: an upload of the wrong shape.",
    width=6,
    height=8,
    alerts=("StalledProgress",),
    unit="short",
    colours={"rows refused": RED},
    is_stacked=True,
)

_PROGRESS: Final = Panel(
    title="Do jobs flow? Time without progress",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_seconds_since_progress")),),
    shows="Seconds since a chunk was last finished, while chunks wait that could run; 0 when nothing waits.",
    good="a few seconds.",
    bad="above 120 s is a warning, above 300 s critical: nothing moves. *Batches and queue* says why.",
    width=4,
    height=4,
    alerts=("StalledProgress", "NoWorker"),
    unit="s",
    decimals=0,
    limits=limits.SECONDS_SINCE_PROGRESS,
    no_value="unknown",
)

_WAITING: Final = Panel(
    title="How much waits? Unfinished chunks",
    look=Look.FIGURES,
    queries=(Query(added(seen_by_the_api("churn_queue_depth", ["priority"]))),),
    shows="Chunks (25,000 customers each, unless CHUNK_ROWS says otherwise) that are not finished, of all batches.",
    good="any number that falls.",
    bad="one that rises for hours: more comes than is scored.",
    width=4,
    height=4,
    alerts=("BacklogOld",),
    decimals=0,
    no_value="unknown",
)

_TIME_LEFT: Final = Panel(
    title="How long will all of it take?",
    look=Look.FIGURES,
    queries=(Query(seconds_for_all_that_waits()),),
    shows="The unfinished chunks at the pace of the last five minutes. One batch's own estimate is in its status (`churn "
    "status`).",
    good="minutes, or *nothing is being scored* while nothing waits.",
    bad="longer than your clients wait; *nothing is being scored* while chunks wait.",
    width=4,
    height=4,
    alerts=("BacklogOld", "BatchesBurn"),
    unit="s",
    decimals=0,
    no_value="nothing is being scored",
)

_WORKERS: Final = Panel(
    title="Which processes are up?",
    look=Look.FIGURES,
    queries=(
        Query('sum(up{job="api"})', "API"),
        Query('sum by (worker) (up{job="worker"})', "{{worker}}"),
        Query(seen_by_the_api("churn_database_up"), "Postgres"),
        Query(seen_by_the_api("churn_redis_up"), "Redis"),
    ),
    shows="How many of each answer: processes that Prometheus reaches, and the servers that the API reaches.",
    good="one or more of each.",
    bad="0: that part is away. Without a batch worker batches wait, without an interactive one single predictions do; without "
    "Postgres everything does, without Redis the hints do. Nothing is lost.",
    width=8,
    height=4,
    alerts=("NoWorker", "ApiDown", "DatabaseDown", "BrokerDown"),
    decimals=0,
    limits=limits.MUST_BE_ONE,
    no_value="nobody knows",
)

_ACCURACY: Final = Panel(
    title="Is the model good? Accuracy",
    look=Look.FIGURES,
    queries=(
        Query(
            accuracy_of_the_champion(),
            "{{model_version}}",
        ),
    ),
    shows="The area under the ROC curve of the active model, on customers held out from its training.",
    good="0.85 or more.",
    bad="below 0.85 is a warning, below 0.8 critical: its scores are not fit to act on. *no model is active*: none can be "
    "used.",
    width=4,
    height=4,
    alerts=("ModelAccuracyDrop", "ModelNotUsable"),
    decimals=3,
    limits=limits.MODEL_ACCURACY,
    no_value="no model is active",
)

_ALERTS_NOW: Final = Panel(
    title="Which alerts fire now?",
    look=Look.TABLE,
    queries=(Query('(time() - ALERTS_FOR_STATE) and ignoring (alertstate) ALERTS{alertstate="firing"}'),),
    shows="Every alert that fires, and since when its condition has held. Its section of docs/runbook.md says what to do.",
    good="none.",
    bad="*critical*: something is broken or being lost at this moment. *warning*: to be looked at within the day.",
    width=10,
    height=8,
    alerts=("MetricsMissing",),
    unit="s",
    hidden_columns=("alertstate", "job"),
    value_name="has held for",
    no_value="No alert fires.",
)

_ALERTS_THEN: Final = Panel(
    title="Which alerts fired when?",
    look=Look.STATES,
    queries=(
        Query(
            'max by (alertname, severity) (ALERTS{alertstate="firing", severity="warning"})'
            ' or 2 * max by (alertname, severity) (ALERTS{alertstate="firing", severity="critical"})',
            "{{alertname}} ({{severity}})",
        ),
    ),
    shows="When each alert fired, over the time shown. The marks over the other plots are the same moments.",
    good="an empty panel.",
    bad="several that began together: the first is the cause more often than the loudest.",
    width=14,
    height=8,
    states={"1": ("warning", YELLOW), "2": ("critical", RED)},
    no_value="No alert fired.",
)

_SINGLES_KEPT: Final = Panel(
    title="Single predictions within 300 ms: objective 99.5 %",
    look=Look.FIGURES,
    queries=(Query(f"1 - {late_predictions('$__range')}"),),
    shows="The share of single predictions, over the time shown, that were answered within 300 ms and did not fail.",
    good="99.5 % or more.",
    bad="less: look at the time in which the burn rate beside this was above 1.",
    width=5,
    height=7,
    alerts=("SinglePredictionsBurn",),
    unit="percentunit",
    decimals=2,
    limits=limits.Limits(critical=1 - limits.LATE_PREDICTIONS_ALLOWED, is_floor=True),
    no_value="none was asked for",
)

_SINGLES_BURN: Final = Panel(
    title="How fast is what may be late used up? Single predictions",
    look=Look.CURVES,
    queries=(
        Query(f"({late_predictions('5m')}) / {limits.LATE_PREDICTIONS_ALLOWED}", "last 5 minutes"),
        Query(f"({late_predictions('1h')}) / {limits.LATE_PREDICTIONS_ALLOWED}", "last hour"),
    ),
    shows="The burn rate: how many times as many single predictions are late or fail as the objective (0.5 %) allows.",
    good="below 1.",
    bad="above 14.4 in both windows somebody is woken: two days of it use up a month's allowance. Above 3 for a day is a "
    "warning.",
    width=7,
    height=7,
    alerts=("SinglePredictionsBurn",),
    unit="short",
    limits=limits.BURN,
)

_BATCHES_KEPT: Final = Panel(
    title="Batches within their promise: objective 99 %",
    look=Look.FIGURES,
    queries=(
        Query(
            share(
                'max(increase(churn_batches_promised_total{kept="yes"}[$__range]))',
                "sum(max by (kept) (increase(churn_batches_promised_total[$__range])))",
            )
        ),
    ),
    shows="The share of the batches that ended in the time shown within the promise made when they were planned (the "
    "estimate's p90).",
    good="99 % or more; of a few batches a single late one is much.",
    bad="less: workers were missing or slow, or the installation has grown out of its workers.",
    width=5,
    height=7,
    alerts=("BatchesBurn",),
    unit="percentunit",
    decimals=1,
    limits=limits.Limits(critical=1 - limits.LATE_BATCHES_ALLOWED, is_floor=True),
    no_value="no batch ended",
)

_BATCHES_BURN: Final = Panel(
    title="How fast is what may be late used up? Batches",
    look=Look.CURVES,
    queries=(
        Query(f"({late_batches('5m')}) / {limits.LATE_BATCHES_ALLOWED}", "last 5 minutes"),
        Query(f"({late_batches('1h')}) / {limits.LATE_BATCHES_ALLOWED}", "last hour"),
    ),
    shows="The burn rate: how many times as many batches end later than promised as the objective (1 %) allows.",
    good="below 1.",
    bad="above 14.4 in both windows somebody is woken; above 3 for a day is a warning.",
    width=7,
    height=7,
    alerts=("BatchesBurn",),
    unit="short",
    limits=limits.BURN,
)

_FAILURES: Final = Panel(
    title="What are requests refused or failed for?",
    look=Look.CURVES,
    queries=(Query(f"topk(8, {counted('ml_api_errors_total', ['error_type'], window='$__rate_interval')})", "{{error_type}}"),),
    shows="Requests that were answered by a problem, by its code; the eight most frequent.",
    good="few, and of the kinds that clients cause (validation_failed, not_found).",
    bad="internal_error (a bug), unavailable (Postgres is away), backlog_full (too much waits), many unauthorised.",
    width=12,
    height=8,
    alerts=("HighErrorRate",),
)

_SLOWEST: Final = Panel(
    title="Which routes are slow?",
    look=Look.CURVES,
    queries=(
        Query(
            "topk(8, histogram_quantile(0.95, sum by (method, endpoint, le) "
            f"(rate(ml_api_request_duration_seconds_bucket{{{OF_CLIENTS}}}[$__rate_interval]))))",
            "{{method}} {{endpoint}}",
        ),
    ),
    shows="The time that 95 % of a route's answers stay below; the eight slowest. Status (long polls) and uploads take long on "
    "purpose.",
    good="fast routes stay fast.",
    bad="all of them slow at once: Postgres or the CPU. One of them: its query.",
    width=12,
    height=8,
    alerts=("HighResponseTime", "SlowQueries"),
    unit="s",
)

BOARD: Final = Board(
    name="service",
    title="Churn 1: is the service well?",
    description="The first look: requests, alerts, objectives. The other dashboards say why.",
    sections=(
        Section("Is the service well?", (_REQUESTS, _RESPONSE_TIME, _ERROR_RATE, _PREDICTIONS)),
        Section(
            "In a minute: do jobs flow, how long will they take, what is missing, is the model good?",
            (_PROGRESS, _WAITING, _TIME_LEFT, _WORKERS, _ACCURACY),
        ),
        Section("Which alerts fire?", (_ALERTS_NOW, _ALERTS_THEN)),
        Section("Are the promises kept?", (_SINGLES_KEPT, _SINGLES_BURN, _BATCHES_KEPT, _BATCHES_BURN)),
        Section("Where does it come from?", (_FAILURES, _SLOWEST)),
    ),
)
