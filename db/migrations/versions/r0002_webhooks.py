"""Webhooks: an event for each batch that has ended, who is told of it, and each delivery.

Only adds, so that the previous version goes on working on it.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CALLBACK = """
ALTER TABLE batch_jobs ADD COLUMN callback_url text;
"""

_ENDPOINTS = """
CREATE TABLE webhook_endpoints (
    endpoint_id      varchar(50) COLLATE "C" PRIMARY KEY DEFAULT 'whe_' || replace(gen_random_uuid()::text, '-', ''),
    url              text NOT NULL,
    events           text[] NOT NULL,
    description      text NOT NULL DEFAULT '',
    secret           text NOT NULL,
    previous_secret  text,
    previous_until   timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at      timestamptz,
    disabled_reason  text,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
CREATE INDEX webhook_endpoints_newest ON webhook_endpoints (created_at, endpoint_id);
"""

# The key on batch_id is what makes it one event a batch.
_OUTBOX = """
CREATE TABLE outbox (
    event_id      varchar(50) COLLATE "C" PRIMARY KEY DEFAULT 'evt_' || replace(gen_random_uuid()::text, '-', ''),
    batch_id      varchar(50) COLLATE "C" NOT NULL UNIQUE REFERENCES batch_jobs ON DELETE CASCADE,
    event         text NOT NULL
        CHECK (event IN ('batch.completed', 'batch.partial', 'batch.failed', 'batch.cancelled', 'batch.expired')),
    occurred_at   timestamptz NOT NULL,
    handed_out_at timestamptz
);
COMMENT ON COLUMN outbox.handed_out_at IS 'When its deliveries were made; one that nobody listens to has none.';
CREATE INDEX outbox_waiting ON outbox (occurred_at) WHERE handed_out_at IS NULL;
"""

# Deliveries of one receiver's host share its places in the queue, so that one that hangs does not hold up the others.
_DELIVERIES = """
CREATE TABLE webhook_deliveries (
    delivery_id     varchar(50) COLLATE "C" PRIMARY KEY DEFAULT 'whd_' || replace(gen_random_uuid()::text, '-', ''),
    event_id        varchar(50) COLLATE "C" NOT NULL REFERENCES outbox ON DELETE CASCADE,
    endpoint_id     varchar(50) COLLATE "C" REFERENCES webhook_endpoints ON DELETE CASCADE,
    url             text NOT NULL,
    receiver        text NOT NULL GENERATED ALWAYS AS (lower(coalesce(substring(url FROM '^[^/]+//([^/?]+)'), url))) STORED,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'delivered', 'failed')),
    attempt         integer NOT NULL DEFAULT 0,
    attempts_before integer NOT NULL DEFAULT 0,
    available_at    timestamptz NOT NULL DEFAULT '-infinity',
    published_at    timestamptz,
    lease_until     timestamptz,
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempted_at    timestamptz,
    finished_at     timestamptz,
    UNIQUE NULLS NOT DISTINCT (event_id, endpoint_id),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('delivered', 'failed')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON COLUMN webhook_deliveries.endpoint_id IS 'NULL: the receiver is the callback_url of the batch.';
COMMENT ON COLUMN webhook_deliveries.attempt IS 'Never goes back, so it is the fence.';
COMMENT ON COLUMN webhook_deliveries.attempts_before IS 'Attempts before it was last asked for anew; the others count.';
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (available_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_busy ON webhook_deliveries (receiver) WHERE state = 'running' OR published_at IS NOT NULL;
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, created_at, delivery_id)
    WHERE endpoint_id IS NOT NULL;
"""

# A batch ends in many places; this is the one that none of them can forget. It fires for no other update: the condition is
# looked at without calling the function.
_ENDED = """
CREATE FUNCTION batch_jobs_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (batch_id, event, occurred_at) VALUES (new.batch_id, 'batch.' || new.status, new.completed_at)
        ON CONFLICT (batch_id) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER batch_jobs_ended AFTER UPDATE OF completed_at ON batch_jobs
    FOR EACH ROW WHEN (old.completed_at IS NULL AND new.completed_at IS NOT NULL) EXECUTE FUNCTION batch_jobs_ended();
CREATE TRIGGER batch_jobs_born_ended AFTER INSERT ON batch_jobs
    FOR EACH ROW WHEN (new.completed_at IS NOT NULL) EXECUTE FUNCTION batch_jobs_ended();
"""

# Those that ended before have their event too, but nobody is told of them now. Behind the triggers, whose lock has waited for
# every batch that was ending without them.
_ENDED_BEFORE = """
INSERT INTO outbox (batch_id, event, occurred_at, handed_out_at)
SELECT batch_id, 'batch.' || status, completed_at, clock_timestamp() FROM batch_jobs WHERE completed_at IS NOT NULL
    ON CONFLICT (batch_id) DO NOTHING;
"""

_DOWN = """
DROP TRIGGER batch_jobs_ended ON batch_jobs;
DROP TRIGGER batch_jobs_born_ended ON batch_jobs;
DROP FUNCTION batch_jobs_ended();
DROP TABLE webhook_deliveries, outbox, webhook_endpoints;
ALTER TABLE batch_jobs DROP COLUMN callback_url;
"""


def upgrade() -> None:
    for script in (_CALLBACK, _ENDPOINTS, _OUTBOX, _DELIVERIES, _ENDED, _ENDED_BEFORE):
        op.execute(script)


def downgrade() -> None:
    op.execute(_DOWN)
