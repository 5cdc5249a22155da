"""What workers do with their time: chunks, the model's calls, COPY, engines, the machine they run on."""

from __future__ import annotations

from typing import Final

from deploy.grafana import limits
from deploy.grafana.board import Board, Section
from deploy.grafana.panels import GREEN, RED, YELLOW, Look, Panel, Query
from deploy.grafana.promql import counted, per_second, quantile, share

_HERE: Final = 'instance=~"$instance"'

_UP: Final = Panel(
    title="Which workers are up?",
    look=Look.STATES,
    queries=(Query(f'max by (worker, instance) (up{{job="worker", {_HERE}}})', "{{worker}} {{instance}}"),),
    shows="Each worker's port of metrics, as Prometheus reached it or not.",
    good="green throughout, one of each kind at least.",
    bad="red: it has ended or hangs; the last line of its log says why. A gap: Prometheus itself was away.",
    width=12,
    height=7,
    alerts=("NoWorker",),
    states={"1": ("up", GREEN), "0": ("down", RED)},
    no_value="no worker is known to Prometheus",
)

_ROWS: Final = Panel(
    title="Who scores how much?",
    look=Look.CURVES,
    queries=(Query(per_second(f"ml_predictions_total{{{_HERE}}}", ["worker", "instance"]), "{{worker}} {{instance}}"),),
    shows="Customers scored a second, by worker.",
    good="batch workers share the load evenly.",
    bad="one that does nothing while others do.",
    width=12,
    height=7,
    alerts=("NoWorker", "StalledProgress"),
    is_stacked=True,
)

_CHUNK: Final = Panel(
    title="How long does a chunk take?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.5, "churn_chunk_seconds", where=_HERE), "half are faster than"),
        Query(quantile(0.95, "churn_chunk_seconds", where=_HERE), "95 % are faster than"),
    ),
    shows="From claim to commit, of a chunk of CHUNK_ROWS customers.",
    good="a second or less for 25,000 customers.",
    bad="a rise with the model's calls unchanged: Postgres (COPY, beside this). Near LEASE_SECONDS (60) work is done twice.",
    width=8,
    height=8,
    alerts=("ChunksFailing",),
    unit="s",
)

_STEPS: Final = Panel(
    title="Where does a chunk's time go?",
    look=Look.CURVES,
    queries=(Query(per_second(f"churn_chunk_step_seconds_total{{{_HERE}}}", ["step"]), "{{step}}"),),
    shows="Seconds that workers spend a second, by step; all of them together are how many processes are busy.",
    good="predict and write share most of it.",
    bad="*claim* or *publish* grow: locks in Postgres, a slow Redis. *write* grows: disk, WAL, indexes.",
    width=8,
    height=8,
    alerts=("SlowQueries",),
    unit="s",
    is_stacked=True,
)

_COPY: Final = Panel(
    title="How long does COPY take?",
    look=Look.CURVES,
    queries=(Query(quantile(0.95, "churn_copy_seconds", ["direction"], where=_HERE), "{{direction}}: 95 % are faster than"),),
    shows="Rows of one chunk sent to Postgres (in) or read from it (out).",
    good="tenths of a second.",
    bad="seconds: Postgres' disk, or others who write.",
    width=8,
    height=8,
    alerts=("SlowQueries", "DiskFilling"),
    unit="s",
)

_INFERENCE: Final = Panel(
    title="How long does the model take?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.5, "churn_inference_seconds", where=_HERE), "half are faster than"),
        Query(quantile(0.95, "churn_inference_seconds", where=_HERE), "95 % are faster than"),
    ),
    shows="One call of the model: a slice of a chunk, or a group of single customers.",
    good="the same day after day.",
    bad="seven to eight times as long: LightGBM scores in the place of the compiled engine. Slowly more: the CPU is shared.",
    width=8,
    height=8,
    alerts=("EngineFellBack", "HighCpu"),
    unit="s",
)

_ENGINES: Final = Panel(
    title="Which engine scores?",
    look=Look.CURVES,
    queries=(Query(f"sum by (engine) (churn_engine_in_use{{{_HERE}}})", "{{engine}}"),),
    shows="Processes by the engine that scores in them.",
    good="compiled, where the model was compiled when it was registered.",
    bad="lightgbm beside compiled: some processes fell back; the table below says for what.",
    width=8,
    height=8,
    alerts=("EngineFellBack",),
    colours={"compiled": GREEN, "lightgbm": YELLOW},
    is_stacked=True,
)

_SINGLES: Final = Panel(
    title="How long do single predictions wait for the worker?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.5, "churn_prediction_queued_seconds", where=_HERE), "half wait less than"),
        Query(quantile(0.95, "churn_prediction_queued_seconds", where=_HERE), "95 % wait less than"),
    ),
    shows="From a request to its claim by the interactive worker.",
    good="milliseconds.",
    bad="tenths of a second: the interactive worker is short of CPU; give it a machine or a niceness of its own.",
    width=8,
    height=8,
    alerts=("SinglePredictionsBurn",),
    unit="s",
)

_USABLE: Final = Panel(
    title="Can every worker use the model?",
    look=Look.FIGURES,
    queries=(Query(f"min by (model_version) (churn_model_usable{{{_HERE}}})", "{{model_version}}"),),
    shows="Whether every process that has tried could load, verify and use a model.",
    good="usable.",
    bad="not usable: its files are missing or altered. What needs it waits, and the batch says so (held_up).",
    width=8,
    height=6,
    alerts=("ModelNotUsable",),
    limits=limits.MUST_BE_ONE,
    states={"1": ("usable", GREEN), "0": ("not usable", RED)},
    no_value="no worker has loaded one yet",
)

_LOADED: Final = Panel(
    title="Which models were loaded, and what stood in the compiled engine's way?",
    look=Look.TABLE,
    queries=(Query(f"sum by (worker, model_version, engine, fallback) (churn_models_loaded_total{{{_HERE}}})"),),
    shows="Loads of a model since the worker's start, by the engine that scores with it.",
    good="an empty *fallback*.",
    bad="a word in *fallback*: the scores are the same, at an eighth of the pace.",
    width=8,
    height=6,
    alerts=("EngineFellBack",),
    decimals=0,
    value_name="loads",
    no_value="none yet",
)

_LOAD_SECONDS: Final = Panel(
    title="How long does it take to load a model, and to hold it to LightGBM?",
    look=Look.CURVES,
    queries=(
        Query(quantile(0.95, "churn_model_load_seconds", where=_HERE, window="15m"), "load, 95 %"),
        Query(quantile(0.95, "churn_model_parity_seconds", where=_HERE, window="15m"), "parity check, 95 %"),
    ),
    shows="A model read, verified and ready, of those loaded in 15 minutes; and the part of it that compares the engines' "
    "scores.",
    good="a second or two, at a worker's start and after an activation.",
    bad="loads all day: processes die and are replaced (memory).",
    width=8,
    height=6,
    alerts=("ModelNotUsable", "HighMemory"),
    unit="s",
    no_value="none was loaded lately",
)

_CPU: Final = Panel(
    title="Is the CPU enough?",
    look=Look.CURVES,
    queries=(Query('1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))', "{{instance}}"),),
    shows="How busy each machine's processors are, over five minutes.",
    good="busy while batches run: it is what they are for.",
    bad="above 70 % for a quarter of an hour is a warning, above 90 % critical; it matters if single predictions are slow too.",
    width=8,
    height=8,
    alerts=("HighCpu",),
    unit="percentunit",
    limits=limits.CPU,
    highest=1,
)

_MEMORY: Final = Panel(
    title="Is the memory enough?",
    look=Look.CURVES,
    queries=(Query("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),),
    shows="The share of each machine's memory that is not available.",
    good="level.",
    bad="above 80 % is a warning, above 95 % critical: the kernel is about to kill a process. Its chunk is tried again.",
    width=8,
    height=8,
    alerts=("HighMemory",),
    unit="percentunit",
    limits=limits.MEMORY,
    highest=1,
)

_TASKS: Final = Panel(
    title="What does Celery say? Tasks of Flower's events",
    look=Look.CURVES,
    queries=(Query(per_second("flower_events_total", ["task", "type"]), "{{task}} {{type}}"),),
    shows="Events a second that Flower hears of the workers' tasks. The ledger is the truth; this is Celery's own view beside "
    "it.",
    good="task-succeeded follows task-received.",
    bad="task-received alone: tasks hang. task-failed: a bug, with its traceback in Flower and in the log.",
    width=8,
    height=8,
    alerts=("MetricsMissing",),
    no_value="Flower is not scraped, or workers send no events",
)

_RATIO_OF_CACHE: Final = Panel(
    title="Does the cache of single predictions help?",
    look=Look.CURVES,
    queries=(
        Query(
            share(
                per_second('churn_prediction_cache_total{outcome="hit"}', window="5m"),
                per_second("churn_prediction_cache_total", window="5m"),
            ),
            "found",
        ),
    ),
    shows="The share of single predictions whose score was kept. Empty where PREDICTION_CACHE_ENABLED is false, as it is by "
    "default.",
    good="a share that is worth the memory.",
    bad="next to nothing: switch it off.",
    width=12,
    height=7,
    alerts=(),
    unit="percentunit",
    highest=1,
    no_value="the cache is off",
)

_ATTEMPTS: Final = Panel(
    title="How many chunks are claimed and finished?",
    look=Look.CURVES,
    queries=(
        Query(counted(f"churn_chunk_attempts_total{{{_HERE}}}", window="1m"), "claimed"),
        Query(counted(f"churn_chunk_seconds_count{{{_HERE}}}", window="1m"), "closed"),
        Query(counted(f"churn_batches_ended_total{{{_HERE}}}", window="1m"), "batches ended"),
    ),
    shows="Chunks claimed and closed, and batches ended, a minute.",
    good="both curves on top of each other.",
    bad="claimed above closed: attempts die or fail.",
    width=12,
    height=7,
    alerts=("ChunksFailing",),
)

BOARD: Final = Board(
    name="workers",
    title="Churn 3: what do workers do?",
    description="What workers do with their time: chunks, the model's calls, COPY, engines, the machine they run on.",
    sections=(
        Section("Are they there, and do they work?", (_UP, _ROWS)),
        Section("Where does the time go?", (_CHUNK, _STEPS, _COPY, _INFERENCE, _SINGLES, _ENGINES)),
        Section("Can they use the model?", (_USABLE, _LOADED, _LOAD_SECONDS)),
        Section("Have they what they need?", (_CPU, _MEMORY, _TASKS)),
        Section("More", (_ATTEMPTS, _RATIO_OF_CACHE)),
    ),
    asks_instance=True,
)
