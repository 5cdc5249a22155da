"""Where the trace of a request goes on, kept with its work, so that whoever publishes a hint later can carry it along.

An expansion: older code goes on, and leaves the columns null, as every process does that records no traces.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE batch_jobs ADD COLUMN trace_context jsonb;
ALTER TABLE prediction_requests ADD COLUMN trace_context jsonb;
COMMENT ON COLUMN batch_jobs.trace_context IS 'traceparent and tracestate (W3C) of the submit, if it is recorded as a trace.';
COMMENT ON COLUMN prediction_requests.trace_context IS 'As in batch_jobs.';

INSERT INTO schema_serves VALUES ('0011');
"""

_DOWN = """
ALTER TABLE batch_jobs DROP COLUMN trace_context;
ALTER TABLE prediction_requests DROP COLUMN trace_context;
DELETE FROM schema_serves WHERE revision = '0011';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
