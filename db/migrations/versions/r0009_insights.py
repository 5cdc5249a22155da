"""What batches were promised and whether it was kept, and which customers came to be at risk.

An expansion: older code goes on; its batches are promised nothing.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PROMISE = """
ALTER TABLE batch_jobs ADD promised_at timestamptz, ADD planned_load bigint;
COMMENT ON COLUMN batch_jobs.promised_at IS
    'When it should have ended in nine cases of ten, told once it was planned; NULL: nothing was promised, or it was paused.';
COMMENT ON COLUMN batch_jobs.planned_load IS
    'Its customers and those that were to be scored before it or in turns with it, when it was planned; NULL once paused.';
"""

# A row for each batch that has ended with results. It is what the next promises are made from, and what is still to be counted.
_INSIGHTS = """
CREATE TABLE batch_insights (
    batch_id       varchar(50) COLLATE "C" PRIMARY KEY REFERENCES batch_jobs ON DELETE CASCADE,
    ended_at       timestamptz NOT NULL,
    planned_load   bigint,
    load_class     integer GENERATED ALWAYS AS (width_bucket(planned_load, ARRAY[1000, 10000]::bigint[])) STORED,
    seconds        double precision,
    kept           boolean,
    is_kept_added  boolean NOT NULL DEFAULT false,
    next_row       bigint NOT NULL DEFAULT 0,
    newly_high     integer NOT NULL DEFAULT 0,
    newly_critical integer NOT NULL DEFAULT 0,
    counted_at     timestamptz
) WITH (fillfactor = 70);
COMMENT ON COLUMN batch_insights.seconds IS 'From its plan to its end; NULL where planned_load is.';
COMMENT ON COLUMN batch_insights.kept IS 'Whether it ended by the time that was promised; NULL: none was.';
COMMENT ON COLUMN batch_insights.next_row IS 'The first row that is not compared yet with its customer''s prediction before.';
CREATE INDEX batch_insights_recent ON batch_insights (load_class, ended_at) WHERE planned_load IS NOT NULL;
CREATE INDEX batch_insights_to_add ON batch_insights (batch_id) WHERE kept IS NOT NULL AND NOT is_kept_added;
CREATE INDEX batch_insights_to_count ON batch_insights (ended_at) WHERE counted_at IS NULL;

ALTER TABLE batch_insights ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON batch_insights USING (
    current_setting('churn.team', true) = '*' OR EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = batch_insights.batch_id));
"""

# As the event of a batch's end, this is left by the transaction that ends it, whoever ends it.
_ENDED = """
CREATE FUNCTION batch_jobs_insight() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO batch_insights (batch_id, ended_at, planned_load, seconds, kept)
    VALUES (new.batch_id, new.completed_at, new.planned_load,
            CASE WHEN new.planned_load IS NOT NULL THEN extract(epoch FROM new.completed_at - new.planned_at) END,
            new.completed_at <= new.promised_at)
        ON CONFLICT (batch_id) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER batch_jobs_insight AFTER UPDATE OF completed_at ON batch_jobs
    FOR EACH ROW WHEN (old.completed_at IS NULL AND new.completed_at IS NOT NULL AND new.status IN ('completed', 'partial'))
    EXECUTE FUNCTION batch_jobs_insight();
"""

_TOTALS = """
CREATE TABLE promise_paces (
    load_class   integer PRIMARY KEY,
    slow_pace    double precision NOT NULL CHECK (slow_pace > 0),
    slow_seconds double precision NOT NULL,
    refreshed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE promise_paces IS 'How slow the slowest tenth of the latest batches were, by the class of their load.';

CREATE TABLE insight_totals (
    name text PRIMARY KEY,
    n    bigint NOT NULL CHECK (n >= 0)
);
COMMENT ON TABLE insight_totals IS 'Running totals of all teams, so that no scrape adds up the past.';

CREATE TABLE newly_at_risk (
    team     varchar(50) COLLATE "C" NOT NULL,
    day      date NOT NULL,
    high     bigint NOT NULL CHECK (high >= 0),
    critical bigint NOT NULL CHECK (critical >= 0),
    PRIMARY KEY (team, day)
);
COMMENT ON TABLE newly_at_risk IS 'Customers of a team that came into a band, by the day of UTC on which their batch ended.';
ALTER TABLE newly_at_risk ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON newly_at_risk USING (current_setting('churn.team', true) IN (team, '*'));

CREATE TABLE insight_turns (
    what     text PRIMARY KEY,
    taken_at timestamptz NOT NULL
);
COMMENT ON TABLE insight_turns IS 'When a process last took each turn of the work in the background.';

CREATE TABLE singles_at_risk (
    id bigint PRIMARY KEY
);
COMMENT ON TABLE singles_at_risk IS 'Single predictions of a high band that are to be compared with those before.';

INSERT INTO schema_serves VALUES ('0009');
"""

_DOWN = """
DROP TRIGGER batch_jobs_insight ON batch_jobs;
DROP FUNCTION batch_jobs_insight();
DROP TABLE batch_insights, promise_paces, insight_totals, newly_at_risk, insight_turns, singles_at_risk;
ALTER TABLE batch_jobs DROP promised_at, DROP planned_load;
DELETE FROM schema_serves WHERE revision = '0009';
"""


def upgrade() -> None:
    for script in (_PROMISE, _INSIGHTS, _ENDED, _TOTALS):
        op.execute(script)


def downgrade() -> None:
    op.execute(_DOWN)
