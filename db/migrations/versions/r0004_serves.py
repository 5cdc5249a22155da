"""Which revisions' code a schema serves, so that the old version goes on while the new one is deployed.

A revision that only adds (an expansion) inserts its own name and leaves the others: code of those goes on, and may start anew.
One that takes away or changes what older code uses (a contraction) deletes their names in the same transaction, and comes a
version after the code that no longer needs it.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE schema_serves (
    revision text PRIMARY KEY
);
COMMENT ON TABLE schema_serves IS 'Revisions whose code this schema serves; every migration keeps it true.';
INSERT INTO schema_serves VALUES ('0004');
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE schema_serves")
