"""Whether batches flow, how long they will take, and what is stuck and why."""

from __future__ import annotations

from typing import Final

from deploy.grafana import limits
from deploy.grafana.board import Board, Section
from deploy.grafana.limits import Limits
from deploy.grafana.panels import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, Look, Panel, Query
from deploy.grafana.promql import (
    counted,
    customers_finished,
    per_second,
    quantile,
    seconds_for_all_that_waits,
    seen_by_the_api,
    share,
)

_PRIORITIES: Final = {"urgent": RED, "high": ORANGE, "normal": BLUE, "low": GREY}

_PROGRESS: Final = Panel(
    title="How long has nothing moved?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_seconds_since_progress")),),
    shows="Seconds since a chunk was last finished, while chunks wait that could run; 0 when nothing waits.",
    good="a few seconds.",
    bad="above 120 s is a warning, above 300 s critical. The section *What is stuck, and why?* has the reasons, most frequent "
    "first.",
    width=5,
    height=4,
    alerts=("StalledProgress",),
    unit="s",
    decimals=0,
    limits=limits.SECONDS_SINCE_PROGRESS,
    no_value="unknown",
)

_PACE: Final = Panel(
    title="Customers scored a second, now",
    look=Look.FIGURES,
    queries=(Query(customers_finished("1m")),),
    shows="Rows of batches and single customers that were finished a second, over the last minute.",
    good="the pace of your workers while something waits.",
    bad="0 while chunks wait.",
    width=5,
    height=4,
    alerts=("StalledProgress", "NoWorker"),
    unit="short",
    decimals=0,
    no_value="no worker tells",
)

_TIME_LEFT: Final = Panel(
    title="How long for all that waits?",
    look=Look.FIGURES,
    queries=(Query(seconds_for_all_that_waits()),),
    shows="The unfinished chunks at the pace of the last five minutes. One batch's own estimate is in its status (`churn "
    "status`).",
    good="minutes.",
    bad="longer than your clients wait. *nothing is being scored* is bad only while chunks wait.",
    width=5,
    height=4,
    alerts=("BacklogOld",),
    unit="s",
    decimals=0,
    no_value="nothing is being scored",
)

_OLDEST_NOW: Final = Panel(
    title="How old is the oldest unfinished batch?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_oldest_chunk_age_seconds", ["priority"]), "{{priority}}"),),
    shows="Since the submit of the oldest batch that is not finished, by priority; 0 where there is none. A paused batch "
    "counts too.",
    good="0, or about what a batch of yours takes.",
    bad="urgent: warning from 5 minutes, critical from 15. High: 20 minutes, an hour. Normal: an hour, four. Low: half a day, "
    "a day.",
    width=9,
    height=4,
    alerts=("BacklogOld",),
    unit="s",
    decimals=0,
    limits_by_name=limits.BACKLOG_SECONDS,
    no_value="unknown",
)

_ROWS: Final = Panel(
    title="Customers scored a second",
    look=Look.CURVES,
    queries=(
        Query(per_second("ml_predictions_total", ["source"]), "{{source}}"),
        Query(per_second("churn_rows_failed_total"), "rows refused"),
    ),
    shows="What workers finish a second: customers of batches, single ones, and rows that failed.",
    good="a plateau while there is work.",
    bad="a hole in it while chunks wait: a worker was away, or the model, or a server.",
    width=8,
    height=8,
    alerts=("StalledProgress",),
    colours={"rows refused": RED},
    is_stacked=True,
)

_DEPTH: Final = Panel(
    title="How much waits, by priority?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_queue_depth", ["priority"]), "{{priority}}"),),
    shows="Unfinished chunks in the ledger, by the priority of their batch. Urgent ones go first; low ones still get their "
    "turns.",
    good="hills that are climbed down again.",
    bad="a slope that only rises: more comes than is scored. From MAX_BACKLOG_CUSTOMERS on, submits are answered 503.",
    width=8,
    height=8,
    alerts=("BacklogOld",),
    colours=_PRIORITIES,
    is_stacked=True,
)

_OPEN: Final = Panel(
    title="What are open batches doing?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_batches", ["status"]), "{{status}}"),),
    shows="Batches that have not ended, by their state.",
    good="processing, and queued ones that become so.",
    bad="validating for long (a large upload, or no worker); queued only (no worker, no model); paused and forgotten.",
    width=8,
    height=8,
    alerts=("BacklogOld",),
    colours={"processing": GREEN, "queued": BLUE, "validating": PURPLE, "paused": YELLOW, "cancelling": ORANGE},
    is_stacked=True,
)

_BATCH_SECONDS: Final = Panel(
    title="How long do batches take, by size?",
    look=Look.CURVES,
    queries=(Query(quantile(0.9, "churn_batch_seconds", ["customers"], window="15m"), "up to {{customers}} customers"),),
    shows="From submit to end, what 90 % of the batches that ended in the last 15 minutes stayed below, by their number of "
    "customers.",
    good="small batches stay short beside large ones: turns are shared.",
    bad="a small size that takes as long as a large one: it waited.",
    width=8,
    height=8,
    alerts=("BatchesBurn",),
    unit="s",
)

_QUEUED: Final = Panel(
    title="How long do batches wait before they begin?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.5, "churn_batch_queued_seconds", window="15m"), "half wait less than"),
        Query(quantile(0.95, "churn_batch_queued_seconds", window="15m"), "95 % wait less than"),
    ),
    shows="From the submit of a batch to the claim of its first chunk, of batches that ended in the last 15 minutes.",
    good="seconds; as long as validation takes for a large upload.",
    bad="minutes: workers are missing, or all of them are busy with batches of a higher priority.",
    width=8,
    height=8,
    alerts=("BacklogOld", "NoWorker"),
    unit="s",
)

_PROMISES: Final = Panel(
    title="Do batches end when they were promised to?",
    look=Look.CURVES,
    queries=(
        Query('max(increase(churn_batches_promised_total{kept="yes"}[5m]))', "in time"),
        Query('max(increase(churn_batches_promised_total{kept="no"}[5m]))', "late"),
    ),
    shows="Batches that ended in five minutes, by whether within the promise made when they were planned (the estimate's p90).",
    good="one in a hundred late at most.",
    bad="more: see what held them up at that time.",
    width=8,
    height=8,
    alerts=("BatchesBurn",),
    colours={"in time": GREEN, "late": RED},
    is_stacked=True,
)

_WINDOW: Final = Panel(
    title="Are the workers kept busy? Use of the window",
    look=Look.CURVES,
    queries=(
        Query(
            f"{seen_by_the_api('churn_chunks_under_way')} / {seen_by_the_api('churn_dispatch_window_chunks')}", "window in use"
        ),
    ),
    shows="Chunks whose hint is out or that are being scored, as a share of DISPATCH_WINDOW.",
    good="full while much waits, empty when nothing does.",
    bad="full, or above 100 %, without rows being scored: hints are out, have been published again, and nobody takes them "
    "(no worker). Empty while chunks wait: nobody publishes (no Redis, no rescuer).",
    width=8,
    height=8,
    alerts=("NoWorker", "BrokerDown", "RescuerSilent"),
    unit="percentunit",
)

_HINTS: Final = Panel(
    title="Are hints taken from Redis?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_queue_hints", ["queue"]), "{{queue}}"),),
    shows="Hints in Redis that no worker has taken yet, by queue.",
    good="a few, for moments: the window bounds them.",
    bad="a queue that stays long: nobody consumes it.",
    width=8,
    height=8,
    alerts=("NoWorker", "BrokerMemoryHigh"),
)

_RESCUER: Final = Panel(
    title="Is somebody looking after what was left? Rescuer's rounds",
    look=Look.CURVES,
    queries=(Query(counted("churn_rescue_rounds_total", window="5m"), "rounds in 5 minutes"),),
    shows="Rounds of the rescuer, which every worker runs and one at a time does: it gives lapsed chunks back and publishes "
    "what is due.",
    good="some hundreds in five minutes.",
    bad="0 while workers run, critical after five minutes: what a dead worker left stays where it is.",
    width=8,
    height=8,
    alerts=("RescuerSilent",),
)

_FAILING: Final = Panel(
    title="How many attempts at chunks fail?",
    look=Look.CURVES,
    queries=(
        Query(
            share(
                f"({per_second('churn_chunk_failures_total', window='15m')} or vector(0))",
                per_second("churn_chunk_attempts_total", window="15m"),
            ),
            "failed",
        ),
    ),
    shows="The share of the attempts of 15 minutes that ended otherwise than done.",
    good="0.",
    bad="above 5 % is a warning, above 25 % critical. The reasons are beside this.",
    width=8,
    height=8,
    alerts=("ChunksFailing",),
    unit="percentunit",
    limits=limits.CHUNKS_FAILING,
    colours={"failed": RED},
)

_REASONS: Final = Panel(
    title="Why do attempts fail?",
    look=Look.CURVES,
    queries=(Query(counted("churn_chunk_failures_total", ["reason"], window="5m"), "{{reason}}"),),
    shows="Attempts at chunks in five minutes that ended otherwise than done, by reason.",
    good="none.",
    bad="*transient*: Postgres or Redis stumbled, it is tried again. *model*: it cannot be used. *lease*: its worker died "
    "or hung. *memory*, *time_limit*: a chunk that is too much for its worker. *bug*: the log has the traceback. "
    "*data*: rows that nothing can be done with.",
    width=8,
    height=8,
    alerts=("ChunksFailing", "ModelNotUsable"),
    is_stacked=True,
)

_LAPSED: Final = Panel(
    title="Whose work was left behind? Lapsed leases",
    look=Look.CURVES,
    queries=(
        Query(counted("churn_leases_lapsed_total", ["kind"], window="5m"), "{{kind}}: lease lapsed"),
        Query(counted("churn_chunks_rescued_total", ["outcome"], window="5m"), "chunk put to {{outcome}}"),
    ),
    shows="Claims in five minutes whose holder fell silent (it died, or hung), and what became of the chunks.",
    good="none, but for a restart by force.",
    bad="a steady number: workers die (memory) or hang. The same work is done again and again.",
    width=8,
    height=8,
    alerts=("ChunksFailing", "HighMemory"),
)

_AGAIN: Final = Panel(
    title="How often is work begun again?",
    look=Look.CURVES,
    queries=(
        Query(counted('churn_chunk_attempts_total{before!="0"}', ["before"], window="5m"), "after {{before}} attempts"),
        Query(counted("churn_chunks_split_total", window="5m"), "taken apart"),
    ),
    shows="Claims in five minutes of chunks that had been tried before, and chunks taken apart to find the row that fails "
    "them.",
    good="none.",
    bad="*3 or more*: a chunk that nobody can finish. *taken apart*: a row that kills its worker; it will fail alone.",
    width=8,
    height=8,
    alerts=("ChunksFailing",),
)

_ROWS_FAILED: Final = Panel(
    title="Which rows are refused, and for what?",
    look=Look.CURVES,
    queries=(Query(counted("churn_rows_failed_total", ["code"], window="5m"), "{{code}}"),),
    shows="Rows of batches in five minutes that were refused or not scored, by code. A batch's own list: `churn errors "
    "BATCH_ID`.",
    good="a few: somebody's data always has some.",
    bad="all rows of an upload: a column is missing or means something else.",
    width=8,
    height=8,
    alerts=("ChunksFailing",),
    is_stacked=True,
)

_DELIVERIES: Final = Panel(
    title="Do webhooks arrive?",
    look=Look.CURVES,
    queries=(Query(counted("churn_webhook_deliveries_total", ["outcome"], window="5m"), "{{outcome}}"),),
    shows="Attempts to deliver a webhook in five minutes, by outcome.",
    good="delivered.",
    bad="more than a fifth of half an hour's not delivered: warning. *put_off* is tried again, *given_up* is not.",
    width=8,
    height=8,
    alerts=("WebhooksFailing",),
    colours={"delivered": GREEN, "put_off": YELLOW, "given_up": RED},
    is_stacked=True,
)

_OTHERS_WAITING: Final = Panel(
    title="What else waits? Single predictions, webhooks",
    look=Look.CURVES,
    queries=(
        Query(seen_by_the_api("churn_predictions_waiting"), "single predictions"),
        Query(seen_by_the_api("churn_webhooks_waiting"), "webhooks"),
    ),
    shows="Single predictions that are not scored yet, and webhooks that have not arrived and are not given up.",
    good="next to none, for moments.",
    bad="predictions that rise: no interactive worker. Webhooks that rise: no webhook worker, or a receiver that refuses them.",
    width=8,
    height=8,
    alerts=("NoWorker", "WebhooksFailing"),
)

_SINGLES_QUEUED: Final = Panel(
    title="How long do single predictions wait for a worker?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.5, "churn_prediction_queued_seconds"), "half wait less than"),
        Query(quantile(0.95, "churn_prediction_queued_seconds"), "95 % wait less than"),
        Query(seen_by_the_api("churn_oldest_prediction_age_seconds"), "the oldest that waits now"),
    ),
    shows="From a request to its claim by the interactive worker, and the age of the oldest that is still unclaimed.",
    good="milliseconds.",
    bad="above 0.3 s none of them can keep the objective.",
    width=8,
    height=8,
    alerts=("SinglePredictionsBurn", "NoWorker"),
    unit="s",
    limits=Limits(critical=0.3),
)

BOARD: Final = Board(
    name="batches",
    title="Churn 2: do batches flow?",
    description="Whether batches flow, how long they will take, and what is stuck and why.",
    sections=(
        Section("Do they flow?", (_PROGRESS, _PACE, _TIME_LEFT, _OLDEST_NOW, _ROWS, _DEPTH, _OPEN)),
        Section("How long will a batch take?", (_BATCH_SECONDS, _QUEUED, _PROMISES)),
        Section(
            "What is stuck, and why?",
            (_WINDOW, _HINTS, _RESCUER, _FAILING, _REASONS, _LAPSED, _AGAIN, _ROWS_FAILED, _DELIVERIES),
        ),
        Section("Single predictions and webhooks", (_OTHERS_WAITING, _SINGLES_QUEUED)),
    ),
)
