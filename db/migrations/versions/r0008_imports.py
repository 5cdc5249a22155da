"""The rows that a team has imported, by day, so that they count towards its allowance as those of its batches do.

An expansion: older code goes on, and counts batches alone. The record of acts has the same numbers, but workers may not read
it, and an operator may have it forgotten.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE imported_rows (
    team   varchar(50) COLLATE "C" NOT NULL,
    day    date NOT NULL,
    n_rows bigint NOT NULL CHECK (n_rows >= 0),
    PRIMARY KEY (team, day)
);
COMMENT ON TABLE imported_rows IS 'Rows of a team''s imports, good and bad, by the day of UTC on which they were stored.';

ALTER TABLE imported_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON imported_rows USING (current_setting('churn.team', true) IN (team, '*'));

INSERT INTO schema_serves VALUES ('0008');
"""

_DOWN = """
DROP TABLE imported_rows;
DELETE FROM schema_serves WHERE revision = '0008';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
