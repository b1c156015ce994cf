"""Which tab has which image, over all pages, and which page trains."""

from alembic import op

revision = "0002"
down_revision = "0001"

_TEXT = 'TEXT COLLATE "C"'
_STATEMENTS = f"""
CREATE TABLE leases (
    dataset {_TEXT} NOT NULL,
    audience {_TEXT} NOT NULL, -- the session with --overlap, else empty: all sessions share the images
    image_id {_TEXT} NOT NULL,
    session {_TEXT} NOT NULL,
    tab {_TEXT} NOT NULL,
    leased_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (dataset, audience, image_id)
);
CREATE INDEX leases_by_end ON leases (dataset, audience, expires_at);
CREATE INDEX leases_of_tab ON leases (dataset, session, tab);
CREATE TABLE leaders (
    dataset {_TEXT} PRIMARY KEY,
    page {_TEXT} NOT NULL,
    host {_TEXT} NOT NULL,
    server_url {_TEXT} NOT NULL
);
CREATE FUNCTION end_leases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM leases
        WHERE dataset = NEW.dataset AND image_id = NEW.image_id AND audience IN ('', NEW.session);
    RETURN NULL;
END $$;
CREATE TRIGGER end_leases AFTER INSERT ON answers FOR EACH ROW EXECUTE FUNCTION end_leases();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_STATEMENTS)
