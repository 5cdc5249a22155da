"""What the sessions of the server are at, in numbers alone, for the metrics; an index that finds the chunk finished last.

Only adds, so that the previous version goes on working on it.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# A role sees of the sessions of others that they are there, but not what they are at, unless it may read all statistics, and
# with them everybody's statements, in which the driver has written its parameters. So the owner reads, and gives numbers. Where
# it may not read them either, they are counted as `other`, and have no age.
_SESSIONS = """
CREATE FUNCTION database_sessions() RETURNS TABLE (
    state text, n bigint, oldest_query_s double precision, oldest_transaction_s double precision
) LANGUAGE sql VOLATILE SECURITY DEFINER
BEGIN ATOMIC
    SELECT CASE WHEN a.state IN ('active', 'idle', 'idle in transaction') THEN a.state
                WHEN a.state = 'idle in transaction (aborted)' THEN 'idle in transaction'
                ELSE 'other' END,
           count(*),
           max(extract(epoch FROM clock_timestamp() - a.query_start)::double precision)
               FILTER (WHERE a.state = 'active' AND a.pid <> pg_backend_pid()),
           max(extract(epoch FROM clock_timestamp() - a.xact_start)::double precision)
               FILTER (WHERE a.pid <> pg_backend_pid())
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.usesysid IS NOT NULL
       AND coalesce(a.backend_type, 'client backend') = 'client backend'
     GROUP BY 1;
END;
COMMENT ON FUNCTION database_sessions() IS
    'Sessions of this database by state, and the ages of the oldest statement and transaction, as far as the owner sees them.';
REVOKE ALL ON FUNCTION database_sessions() FROM PUBLIC;
"""

_FINISHED = """
CREATE INDEX chunks_finished ON chunks (finished_at) WHERE state IN ('done', 'quarantined');
"""

_DOWN = """
DROP INDEX chunks_finished;
DROP FUNCTION database_sessions();
DELETE FROM schema_serves WHERE revision = '0010';
"""


def upgrade() -> None:
    op.execute(_SESSIONS)
    op.execute(_FINISHED)
    op.execute("INSERT INTO schema_serves VALUES ('0010')")


def downgrade() -> None:
    op.execute(_DOWN)
