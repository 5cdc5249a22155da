"""Row-level security, so that a query that forgets its team shows no other's rows; and the record of who did what.

A contraction for processes that have roles of their own: from here on they see no row before they say whose (see db.sight),
which older code does not.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The owner, who is not bound by it, migrates, makes backups and keeps the promises of foreign keys. Tables that are filled by
# COPY have none, for COPY would be refused: chunk_inputs, upload_parts, row_errors and prediction_history are reached by a
# batch's number or name, and so by a row of batch_jobs that had to be seen before.
_SIGHT = """
ALTER TABLE batch_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON batch_jobs USING (current_setting('churn.team', true) IN (team, '*'));

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON idempotency_keys USING (current_setting('churn.team', true) IN (team, '*'));

ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON webhook_endpoints USING (current_setting('churn.team', true) IN (team, '*'));

ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON outbox USING (
    current_setting('churn.team', true) = '*' OR EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = outbox.batch_id));

ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON webhook_deliveries USING (
    current_setting('churn.team', true) = '*'
    OR EXISTS (SELECT FROM outbox o WHERE o.event_id = webhook_deliveries.event_id));

ALTER TABLE prediction_requests ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON prediction_requests USING (
    current_setting('churn.team', true) = '*'
    OR id >> 40 = (SELECT team_no FROM teams WHERE team = current_setting('churn.team', true)));
"""

_AUDIT = """
CREATE TABLE audit_log (
    audit_no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    team       varchar(50) COLLATE "C",
    act        text NOT NULL CHECK (act ~ '^[a-z_]+[.][a-z_]+$'),
    object     text,
    request_id text,
    detail     jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE audit_log IS 'Who did what to which object; only ever added to. Holds no customer''s data.';
COMMENT ON COLUMN audit_log.team IS 'Of the actor; NULL for an operator and for the product itself.';
CREATE INDEX audit_log_object ON audit_log (object, audit_no) WHERE object IS NOT NULL;
CREATE INDEX audit_log_at ON audit_log USING brin (at);

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_team ON audit_log USING (current_setting('churn.team', true) IN (team, '*'));

-- Grants keep the processes' roles from it; this keeps the owner from doing it by mistake.
CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('churn.audit_retention', true), '') <> 'on' THEN
        RAISE EXCEPTION 'audit_log is only ever added to; forget_audit(before) removes what is older than a time'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN CASE TG_LEVEL WHEN 'ROW' THEN old END;
END $$;
CREATE TRIGGER audit_log_refuse BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_refuse();
CREATE TRIGGER audit_log_refuse_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();

CREATE FUNCTION forget_audit(before timestamptz, who text DEFAULT session_user) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM set_config('churn.audit_retention', 'on', true);
    DELETE FROM audit_log WHERE at < before;
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM set_config('churn.audit_retention', '', true);
    INSERT INTO audit_log (actor, act, detail)
    VALUES (who, 'audit.forgotten', jsonb_build_object('before', before, 'rows', n));
    RETURN n;
END $$;
REVOKE ALL ON FUNCTION forget_audit(timestamptz, text) FROM PUBLIC;
"""

_SERVES = """
DELETE FROM schema_serves;
INSERT INTO schema_serves VALUES ('0007');
"""

_DOWN = """
DROP TABLE audit_log;
DROP FUNCTION audit_log_refuse();
DROP FUNCTION forget_audit(timestamptz, text);
DROP POLICY of_team ON batch_jobs;
DROP POLICY of_team ON idempotency_keys;
DROP POLICY of_team ON webhook_endpoints;
DROP POLICY of_team ON outbox;
DROP POLICY of_team ON webhook_deliveries;
DROP POLICY of_team ON prediction_requests;
ALTER TABLE batch_jobs DISABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys DISABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints DISABLE ROW LEVEL SECURITY;
ALTER TABLE outbox DISABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries DISABLE ROW LEVEL SECURITY;
ALTER TABLE prediction_requests DISABLE ROW LEVEL SECURITY;
DELETE FROM schema_serves;
INSERT INTO schema_serves VALUES ('0005'), ('0006');
"""


def upgrade() -> None:
    for script in (_SIGHT, _AUDIT, _SERVES):
        op.execute(script)


def downgrade() -> None:
    op.execute(_DOWN)
