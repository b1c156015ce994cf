"""The tables of schema 8 of the SQLite database, with the same counters. Texts compare byte by byte, as in SQLite."""

from alembic import op

revision = "0001"
down_revision = None

_TEXT = 'TEXT COLLATE "C"'
_TABLES = f"""
CREATE TABLE answers (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    answer_id {_TEXT} NOT NULL,
    dataset {_TEXT} NOT NULL,
    session {_TEXT} NOT NULL,
    image_id {_TEXT} NOT NULL,
    input_hash BIGINT NOT NULL,
    decision {_TEXT} NOT NULL,
    answered_at DOUBLE PRECISION NOT NULL,
    replaced INTEGER NOT NULL,
    handed_on INTEGER NOT NULL,
    boxes INTEGER NOT NULL,
    version BIGINT,
    kept BIGINT, moved BIGINT, relabelled BIGINT, deleted BIGINT, added BIGINT,
    example {_TEXT} NOT NULL,
    batch {_TEXT},
    kept_80 BIGINT, picked BIGINT,
    active_s DOUBLE PRECISION,
    UNIQUE (dataset, answer_id)
);
CREATE INDEX answers_of_image ON answers (dataset, image_id, session);
CREATE INDEX answers_by_hash ON answers (dataset, input_hash);
CREATE INDEX answers_to_deliver ON answers (dataset, answered_at) WHERE handed_on = 0 AND replaced = 0;
CREATE INDEX answers_of_session ON answers (dataset, session, answered_at) WHERE replaced = 0;
CREATE INDEX answers_in_batch ON answers (dataset, batch) WHERE handed_on = 0 AND batch IS NOT NULL;
CREATE TABLE gallery (
    answer BIGINT PRIMARY KEY,
    dataset {_TEXT} NOT NULL,
    image_id {_TEXT} NOT NULL,
    session {_TEXT} NOT NULL,
    sort_key {_TEXT} NOT NULL,
    file {_TEXT} NOT NULL,
    decision {_TEXT} NOT NULL,
    answered_at DOUBLE PRECISION NOT NULL,
    labels {_TEXT} NOT NULL,
    lowest_score DOUBLE PRECISION,
    latest INTEGER NOT NULL
);
CREATE INDEX gallery_in_order ON gallery (dataset, sort_key, answer) WHERE latest = 1;
CREATE INDEX gallery_of_session ON gallery (dataset, session, sort_key, answer);
CREATE INDEX gallery_of_image ON gallery (dataset, image_id, session);
CREATE TABLE open_tasks (
    dataset {_TEXT} NOT NULL,
    image_id {_TEXT} NOT NULL,
    task {_TEXT} NOT NULL,
    PRIMARY KEY (dataset, image_id)
);
CREATE TABLE deliveries (dataset {_TEXT} PRIMARY KEY, data_id {_TEXT} NOT NULL);
CREATE TABLE label_maps (dataset {_TEXT} PRIMARY KEY, path {_TEXT} NOT NULL, pbtxt {_TEXT} NOT NULL);
CREATE TABLE decision_counts (
    dataset {_TEXT} NOT NULL,
    session {_TEXT} NOT NULL,
    decision {_TEXT} NOT NULL,
    images BIGINT NOT NULL,
    PRIMARY KEY (dataset, session, decision)
);
CREATE TABLE version_counts (
    dataset {_TEXT} NOT NULL,
    version BIGINT NOT NULL,
    images BIGINT NOT NULL,
    kept BIGINT NOT NULL, kept_80 BIGINT NOT NULL, moved BIGINT NOT NULL, relabelled BIGINT NOT NULL,
    deleted BIGINT NOT NULL, added BIGINT NOT NULL, picked BIGINT NOT NULL,
    PRIMARY KEY (dataset, version)
);
CREATE TABLE pending_counts (dataset {_TEXT} PRIMARY KEY, answers BIGINT NOT NULL, latest BIGINT NOT NULL);
"""

# Two functions of SQLite that the queries use. PostgreSQL does not read JSON with the character NUL or with halves of
# characters, which file names may have that are not valid Unicode: they are read as U+FFFD.
_FUNCTIONS = r"""
CREATE FUNCTION instr(whole text, part text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT strpos(whole, part)';
CREATE FUNCTION json_extract(document text, path text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    steps text[] := string_to_array(substr(path, 3), '.');
BEGIN
    RETURN document::json #>> steps;
EXCEPTION WHEN data_exception THEN
    RETURN regexp_replace(document, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\ufffd', 'g')::json #>> steps;
END $$;
"""

_COUNT_ANSWER = """
CREATE FUNCTION count_answer(row_ answers, sign integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO decision_counts AS counts VALUES (row_.dataset, row_.session, row_.decision, sign)
        ON CONFLICT (dataset, session, decision) DO UPDATE SET images = counts.images + excluded.images;
    IF row_.version IS NOT NULL AND row_.kept IS NOT NULL THEN
        INSERT INTO version_counts AS counts VALUES (
            row_.dataset, row_.version, sign, sign * row_.kept, sign * COALESCE(row_.kept_80, row_.kept),
            sign * row_.moved, sign * row_.relabelled, sign * row_.deleted, sign * row_.added,
            sign * COALESCE(row_.picked, 0)
        ) ON CONFLICT (dataset, version) DO UPDATE SET
            images = counts.images + excluded.images, kept = counts.kept + excluded.kept,
            kept_80 = counts.kept_80 + excluded.kept_80, moved = counts.moved + excluded.moved,
            relabelled = counts.relabelled + excluded.relabelled, deleted = counts.deleted + excluded.deleted,
            added = counts.added + excluded.added, picked = counts.picked + excluded.picked;
    END IF;
END $$;
CREATE FUNCTION count_pending(row_ answers, sign integer, is_latest integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF row_.handed_on = 0 AND row_.replaced = 0 THEN
        INSERT INTO pending_counts AS counts VALUES (row_.dataset, sign, sign * is_latest)
            ON CONFLICT (dataset) DO UPDATE
            SET answers = counts.answers + excluded.answers, latest = counts.latest + excluded.latest;
    END IF;
END $$;
CREATE FUNCTION count_latest(row_ gallery, sign integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pending_counts SET latest = latest + sign WHERE dataset = row_.dataset AND EXISTS
        (SELECT 1 FROM answers WHERE id = row_.answer AND handed_on = 0 AND replaced = 0);
END $$;
"""

_TRIGGERS = """
CREATE FUNCTION on_new_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.replaced = 0 THEN PERFORM count_answer(NEW, 1); END IF;
    PERFORM count_pending(NEW, 1, 0); -- it has no row in the gallery yet
    RETURN NULL;
END $$;
CREATE FUNCTION on_changed_answer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_latest integer := (SELECT COUNT(*) FROM gallery WHERE answer = NEW.id AND latest = 1);
BEGIN
    IF OLD.replaced = 0 AND NEW.replaced = 1 THEN PERFORM count_answer(OLD, -1); END IF;
    PERFORM count_pending(OLD, -1, is_latest);
    PERFORM count_pending(NEW, 1, is_latest);
    RETURN NULL;
END $$;
CREATE FUNCTION on_gallery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.latest = 1 AND (TG_OP = 'DELETE' OR NEW.latest = 0) THEN
        PERFORM count_latest(OLD, -1);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.latest = 1 AND (TG_OP = 'INSERT' OR OLD.latest = 0) THEN
        PERFORM count_latest(NEW, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new_answer AFTER INSERT ON answers FOR EACH ROW EXECUTE FUNCTION on_new_answer();
CREATE TRIGGER count_changed_answer AFTER UPDATE OF handed_on, replaced ON answers
    FOR EACH ROW EXECUTE FUNCTION on_changed_answer();
CREATE TRIGGER count_gallery AFTER INSERT OR DELETE OR UPDATE OF latest ON gallery
    FOR EACH ROW EXECUTE FUNCTION on_gallery();
"""


def upgrade() -> None:
    for statements in (_TABLES, _FUNCTIONS, _COUNT_ANSWER, _TRIGGERS):
        op.get_bind().exec_driver_sql(statements)
