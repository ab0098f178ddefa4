"""The schema of release 1.16.0: 13 tables where Dify's own has 136."""

from alembic import op

revision = "standin_1_16_0"
down_revision = None

TABLES = """
CREATE TABLE dify_setups (version text PRIMARY KEY, setup_at timestamp NOT NULL);
CREATE TABLE tenants (id text PRIMARY KEY, name text NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE accounts (
  id text PRIMARY KEY, tenant_id text NOT NULL, email text NOT NULL UNIQUE, name text NOT NULL, password text NOT NULL,
  password_salt text NOT NULL, interface_language text NOT NULL, created_at timestamp NOT NULL
);
CREATE TABLE apps (
  id text PRIMARY KEY, tenant_id text NOT NULL, name text NOT NULL, mode text NOT NULL, description text NOT NULL,
  enable_api boolean NOT NULL, model_config text, workflow_version text, created_at timestamp NOT NULL
);
CREATE TABLE api_tokens (id text PRIMARY KEY, app_id text NOT NULL, token text NOT NULL UNIQUE, created_at timestamp NOT NULL);
CREATE TABLE workflows (
  id text PRIMARY KEY, app_id text NOT NULL, version text NOT NULL, graph text NOT NULL, hash text NOT NULL, created_at timestamp NOT NULL,
  UNIQUE (app_id, version)
);
CREATE TABLE workflow_runs (
  id text PRIMARY KEY, app_id text NOT NULL, status text NOT NULL, inputs text NOT NULL, outputs text, error text,
  created_at timestamp NOT NULL, finished_at timestamp
);
CREATE TABLE conversations (
  id text PRIMARY KEY, app_id text NOT NULL, name text NOT NULL, from_end_user text NOT NULL, created_at timestamp NOT NULL
);
CREATE TABLE messages (
  id text PRIMARY KEY, app_id text NOT NULL, conversation_id text NOT NULL, query text NOT NULL, answer text NOT NULL, status text NOT NULL,
  created_at timestamp NOT NULL
);
CREATE INDEX message_conversation ON messages (conversation_id, created_at);
CREATE TABLE upload_files (
  id text PRIMARY KEY, tenant_id text NOT NULL, storage_key text NOT NULL, name text NOT NULL, size bigint NOT NULL, extension text NOT NULL,
  mime_type text NOT NULL, created_by text NOT NULL, created_at timestamp NOT NULL
);
CREATE TABLE provider_model_credentials (
  id text PRIMARY KEY, tenant_id text NOT NULL, provider_name text NOT NULL, model_name text NOT NULL, model_type text NOT NULL,
  credential_name text NOT NULL, encrypted_config text NOT NULL, created_at timestamp NOT NULL
);
CREATE TABLE tenant_default_models (
  tenant_id text, model_type text, provider_name text NOT NULL, model_name text NOT NULL, PRIMARY KEY (tenant_id, model_type)
);
CREATE TABLE standin_tasks (
  id text PRIMARY KEY, queue text NOT NULL, name text NOT NULL, enqueued_at timestamp NOT NULL, started_at timestamp, finished_at timestamp,
  starts integer NOT NULL DEFAULT 0, worker text, version text
);
CREATE TABLE standin_migrations (release text PRIMARY KEY, ran_at timestamp NOT NULL DEFAULT now());
"""


def upgrade() -> None:
    """Make the tables; the pause gives a second migration the time to meet the lock of the first."""
    op.execute(TABLES)
    op.execute("SELECT pg_sleep(2)")
    op.execute("INSERT INTO standin_migrations (release) VALUES ('1.16.0')")


def downgrade() -> None:
    """Fail: Dify's releases are not taken back either."""
    raise NotImplementedError("a backup is the way back")
