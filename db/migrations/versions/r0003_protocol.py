"""Teams of batches; chunks that are cut out of failed ones; single predictions that are tried alone.

Only adds columns with constant defaults, so the version before goes on working beside it.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE batch_jobs
    ADD team   varchar(50) COLLATE "C" NOT NULL DEFAULT 'default',
    ADD splits integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN batch_jobs.splits IS 'How many of its chunks were taken apart because they failed.';

ALTER TABLE chunks ADD suspect boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN chunks.suspect IS 'Cut out of a chunk that failed, so some row of it may be the reason.';

ALTER TABLE prediction_requests ADD alone boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN prediction_requests.alone IS 'Its worker died, so it is tried again apart from others.';
"""

_DOWN = """
ALTER TABLE prediction_requests DROP alone;
ALTER TABLE chunks DROP suspect;
ALTER TABLE batch_jobs DROP splits, DROP team;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
