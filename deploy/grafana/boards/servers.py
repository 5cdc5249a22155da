"""The database and the broker that everything stands on, their disks, and the certificates before it all."""

from __future__ import annotations

from typing import Final

from deploy.grafana import limits
from deploy.grafana.board import Board, Section
from deploy.grafana.panels import BLUE, GREEN, RED, YELLOW, Look, Panel, Query
from deploy.grafana.promql import OF_DISKS, added, seen_by_the_api

_CONNECTIONS: Final = seen_by_the_api("churn_database_connections", ["state"])

_DATABASE_UP: Final = Panel(
    title="Does Postgres answer?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_database_up")),),
    shows="Whether the API reaches it.",
    good="it answers.",
    bad="it does not: requests are answered 503, nothing is accepted and nothing scored; what was accepted is kept.",
    width=4,
    height=4,
    alerts=("DatabaseDown",),
    limits=limits.MUST_BE_ONE,
    states={"1": ("answers", GREEN), "0": ("silent", RED)},
    no_value="no API tells",
)

_TRIP: Final = Panel(
    title="How fast does Postgres answer?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_database_round_trip_seconds")),),
    shows="One SELECT 1 of the API, at the last scrape.",
    good="a millisecond or two.",
    bad="tens of them: the network between, or a server that is short of CPU.",
    width=4,
    height=4,
    alerts=("SlowQueries", "DatabaseDown"),
    unit="s",
    no_value="no API tells",
)

_TAKEN: Final = Panel(
    title="Are connections left?",
    look=Look.FIGURES,
    queries=(Query(f"{added(_CONNECTIONS)} / {seen_by_the_api('churn_database_connections_limit')}"),),
    shows="Connections of this database, as a share of max_connections.",
    good="below 80 %.",
    bad="above 80 % is a warning, above 95 % critical: the next process that wants one is refused.",
    width=4,
    height=4,
    alerts=("DatabaseConnectionsHigh",),
    unit="percentunit",
    decimals=0,
    limits=limits.CONNECTIONS,
    no_value="no API tells",
)

_BROKER_UP: Final = Panel(
    title="Does Redis answer?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_redis_up")),),
    shows="Whether the API reaches it.",
    good="it answers.",
    bad="it does not: batches are accepted and wait, single predictions are answered 202. Nothing has to be restored into it.",
    width=4,
    height=4,
    alerts=("BrokerDown",),
    limits=limits.MUST_BE_ONE,
    states={"1": ("answers", GREEN), "0": ("silent", RED)},
    no_value="no API tells",
)

_BROKER_TRIP: Final = Panel(
    title="How fast does Redis answer?",
    look=Look.FIGURES,
    queries=(Query(seen_by_the_api("churn_redis_round_trip_seconds")),),
    shows="One PING of the API, at the last scrape.",
    good="below a millisecond on one machine.",
    bad="tens of milliseconds: the network, or a command of somebody else's that takes long.",
    width=4,
    height=4,
    alerts=("BrokerDown",),
    unit="s",
    no_value="no API tells",
)

_POLICY: Final = Panel(
    title="May Redis drop queues?",
    look=Look.FIGURES,
    queries=(Query('count(churn_redis_eviction_policy{policy=~"allkeys-.+"} == 1) or 0 * max(churn_redis_up)'),),
    shows="Whether its maxmemory-policy evicts keys without an expiry, as queues are.",
    good="never.",
    bad="when full: it drops queues without an error. Set noeviction.",
    width=4,
    height=4,
    alerts=("BrokerMayEvict",),
    limits=limits.MUST_BE_NONE,
    states={"0": ("never", GREEN), "1": ("when full", RED)},
    no_value="no API tells",
)

_STATES: Final = Panel(
    title="Who holds connections?",
    look=Look.CURVES,
    queries=(
        Query(_CONNECTIONS, "{{state}}"),
        Query(seen_by_the_api("churn_database_connections_limit"), "max_connections"),
    ),
    shows="Connections of this database by state, and how many the server gives in all.",
    good="mostly idle, far from the limit.",
    bad="*idle in transaction* that stays: somebody forgot to commit and keeps VACUUM from its work.",
    width=8,
    height=8,
    alerts=("DatabaseConnectionsHigh", "SlowQueries"),
    colours={"active": GREEN, "idle": BLUE, "idle in transaction": YELLOW, "max_connections": RED},
)

_POOL: Final = Panel(
    title="Does the API wait for connections of its own?",
    look=Look.CURVES,
    queries=(Query("max by (instance) (churn_database_connections_in_use / churn_database_pool_limit)", "{{instance}}"),),
    shows="Connections that the scraped process of the API has checked out, as a share of its pool and overflow.",
    good="below a half.",
    bad="above 90 % is a warning: the next request waits. See slow queries before you make the pool larger.",
    width=8,
    height=8,
    alerts=("DatabaseConnectionsHigh",),
    unit="percentunit",
    limits=limits.POOL,
)

_OLDEST_QUERY: Final = Panel(
    title="Does a query run for long?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_database_oldest_query_seconds"), "the oldest query"),),
    shows="How long the oldest query that runs now has been running.",
    good="seconds; minutes while the customers of a large filter are looked for.",
    bad="above five minutes is a warning, above forty critical: of ours only the search for a filter's customers may take "
    "half an hour.",
    width=8,
    height=8,
    alerts=("SlowQueries",),
    unit="s",
    limits=limits.OLDEST_QUERY_SECONDS,
)

_OLDEST_TRANSACTION: Final = Panel(
    title="Does a transaction stay open?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_database_oldest_transaction_seconds"), "the oldest transaction"),),
    shows="How long the oldest open transaction has been open.",
    good="seconds; minutes while a very large file is planned.",
    bad="above 15 minutes is a warning, above an hour critical: it holds locks, and keeps VACUUM from its work.",
    width=8,
    height=8,
    alerts=("SlowQueries",),
    unit="s",
    limits=limits.OLDEST_TRANSACTION_SECONDS,
)

_SIZE: Final = Panel(
    title="How large is the database?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_database_bytes"), "database"),),
    shows="Its size on disk, tables and indexes.",
    good="a slope that you expect: about 0.2 GB a million predictions.",
    bad="steeper than what is scored: dead rows that VACUUM cannot take (an open transaction).",
    width=8,
    height=8,
    alerts=("DiskFilling",),
    unit="bytes",
)

_TRIPS: Final = Panel(
    title="How fast do the servers answer?",
    look=Look.CURVES,
    queries=(
        Query(seen_by_the_api("churn_database_round_trip_seconds"), "Postgres"),
        Query(seen_by_the_api("churn_redis_round_trip_seconds"), "Redis"),
    ),
    shows="One SELECT 1 and one PING of the API, at each scrape.",
    good="milliseconds, level.",
    bad="steps and peaks: the machine is short of CPU, or the network is.",
    width=8,
    height=8,
    alerts=("DatabaseDown", "BrokerDown"),
    unit="s",
)

_BROKER_MEMORY: Final = Panel(
    title="Is Redis full?",
    look=Look.CURVES,
    queries=(
        Query(
            f"{seen_by_the_api('churn_redis_memory_bytes')} / ({seen_by_the_api('churn_redis_memory_limit_bytes')} > 0)",
            "of its maxmemory",
        ),
    ),
    shows="Memory in use as a share of maxmemory; nothing where no maxmemory is set.",
    good="a few per cent: our queues hold a few hints.",
    bad="above 80 % is a warning, above 90 % critical. Look for what else is in it, or for a queue that nobody reads.",
    width=8,
    height=8,
    alerts=("BrokerMemoryHigh",),
    unit="percentunit",
    limits=limits.BROKER_MEMORY,
    no_value="no maxmemory is set",
)

_BROKER_BYTES: Final = Panel(
    title="How much memory does Redis use?",
    look=Look.CURVES,
    queries=(
        Query(seen_by_the_api("churn_redis_memory_bytes"), "in use"),
        Query(f"{seen_by_the_api('churn_redis_memory_limit_bytes')} > 0", "maxmemory"),
    ),
    shows="Memory in use, and maxmemory where one is set.",
    good="some megabytes, level.",
    bad="a slope.",
    width=8,
    height=8,
    alerts=("BrokerMemoryHigh",),
    unit="bytes",
    colours={"in use": BLUE, "maxmemory": RED},
)

_HINTS: Final = Panel(
    title="What is in Redis' queues?",
    look=Look.CURVES,
    queries=(Query(seen_by_the_api("churn_queue_hints", ["queue"]), "{{queue}}"),),
    shows="Hints that no worker has taken, by queue.",
    good="a few, for moments.",
    bad="a queue that stays long: nobody consumes it.",
    width=8,
    height=8,
    alerts=("NoWorker", "BrokerMemoryHigh"),
)

_DISKS: Final = Panel(
    title="Which disk fills up?",
    look=Look.BARS,
    queries=(
        Query(
            f"min by (instance, mountpoint) (node_filesystem_avail_bytes{{{OF_DISKS}}} / node_filesystem_size_bytes)",
            "{{instance}} {{mountpoint}}",
        ),
    ),
    shows="What is left of each file system.",
    good="40 % or more.",
    bad="below 15 % is a warning, below 5 % critical; so is one that will be full within a day, or four hours, at the pace of "
    "six hours. A Postgres without room answers nothing.",
    width=12,
    height=8,
    alerts=("DiskFilling",),
    unit="percentunit",
    decimals=0,
    limits=limits.DISK_LEFT,
    highest=1,
    no_value="no node_exporter is scraped",
)

_CERTIFICATES: Final = Panel(
    title="How long are the certificates valid?",
    look=Look.BARS,
    queries=(Query("(probe_ssl_earliest_cert_expiry - time()) / 86400", "{{instance}}"),),
    shows="Until the first certificate of each chain expires.",
    good="three weeks or more.",
    bad="below 21 days is a warning (renewal by itself has failed), below 3 critical.",
    width=12,
    height=8,
    alerts=("CertificateExpiring",),
    unit="d",
    decimals=0,
    limits=limits.CERTIFICATE_DAYS,
    no_value="no blackbox_exporter is scraped",
)

BOARD: Final = Board(
    name="servers",
    title="Churn 4: are Postgres and Redis well?",
    description="The database and the broker, their disks, and the certificates before it all.",
    sections=(
        Section("Do they answer?", (_DATABASE_UP, _TRIP, _TAKEN, _BROKER_UP, _BROKER_TRIP, _POLICY)),
        Section("Postgres", (_STATES, _POOL, _OLDEST_QUERY, _OLDEST_TRANSACTION, _SIZE, _TRIPS)),
        Section("Redis", (_BROKER_MEMORY, _BROKER_BYTES, _HINTS)),
        Section("Disks and certificates", (_DISKS, _CERTIFICATES)),
    ),
)
