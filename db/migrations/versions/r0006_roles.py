"""Which roles were given rights, the one act on predictions that the API's role may ask for, and why a batch is held up.

Only adds, so that the previous version goes on working on it.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ROLES = """
CREATE TABLE database_roles (
    process    text PRIMARY KEY CHECK (process IN ('api', 'worker')),
    role_name  text NOT NULL UNIQUE,
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE database_roles IS 'Roles that were given rights here, for each migration to give them anew.';
"""

# It runs with the rights of the owner. Its names are bound here and now, so no caller's search_path can lend it other tables.
_ANONYMISE = """
CREATE FUNCTION anonymise_predictions(gone varchar) RETURNS void LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
    UPDATE prediction_history SET customer_id = NULL
     WHERE customer_id = gone AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = gone);
    UPDATE row_errors SET customer_id = NULL, value = NULL
     WHERE customer_id = gone AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = gone);
END;
COMMENT ON FUNCTION anonymise_predictions(varchar) IS
    'Takes the id of a customer who was deleted out of predictions and row errors, which the caller may not write otherwise.';
REVOKE ALL ON FUNCTION anonymise_predictions(varchar) FROM PUBLIC;
"""

_HELD_UP = """
ALTER TABLE batch_jobs ADD held_up text;
COMMENT ON COLUMN batch_jobs.held_up IS 'Why its chunks wait that would be scored by now; NULL as soon as one is closed.';
"""

_DOWN = """
ALTER TABLE batch_jobs DROP held_up;
DROP FUNCTION anonymise_predictions(varchar);
DROP TABLE database_roles;
DELETE FROM schema_serves WHERE revision = '0006';
"""


def upgrade() -> None:
    op.execute(_ROLES)
    op.execute(_ANONYMISE)
    op.execute(_HELD_UP)
    op.execute("INSERT INTO schema_serves VALUES ('0006')")


def downgrade() -> None:
    op.execute(_DOWN)
