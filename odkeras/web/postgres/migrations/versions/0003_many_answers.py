"""Counts many changes of a transaction at its end.

Counted one by one, each change would have to pass over all earlier versions of the counters' rows, which PostgreSQL
keeps until the transaction has ended: the cost would grow with the square.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

_FUNCTIONS = """
CREATE FUNCTION counts_later() RETURNS boolean LANGUAGE sql STABLE AS
    $$ SELECT COALESCE(current_setting('odkeras.count_later', true), '') = 'on' $$;
CREATE FUNCTION count_again(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM decision_counts WHERE dataset = name;
    DELETE FROM version_counts WHERE dataset = name;
    DELETE FROM pending_counts WHERE dataset = name;
    INSERT INTO decision_counts SELECT dataset, session, decision, COUNT(*) FROM answers
        WHERE dataset = name AND replaced = 0 GROUP BY dataset, session, decision;
    INSERT INTO version_counts SELECT dataset, version, COUNT(*), SUM(kept), SUM(COALESCE(kept_80, kept)), SUM(moved),
        SUM(relabelled), SUM(deleted), SUM(added), SUM(COALESCE(picked, 0)) FROM answers
        WHERE dataset = name AND replaced = 0 AND version IS NOT NULL AND kept IS NOT NULL GROUP BY dataset, version;
    INSERT INTO pending_counts SELECT answers.dataset, COUNT(*), COALESCE(SUM(gallery.latest), 0) FROM answers
        LEFT JOIN gallery ON gallery.answer = answers.id
        WHERE answers.dataset = name AND handed_on = 0 AND replaced = 0 GROUP BY answers.dataset;
END $$;
"""
_TRIGGERS = (
    ("count_new_answer", "AFTER INSERT ON answers", "on_new_answer"),
    ("count_changed_answer", "AFTER UPDATE OF handed_on, replaced ON answers", "on_changed_answer"),
    ("count_gallery", "AFTER INSERT OR DELETE OR UPDATE OF latest ON gallery", "on_gallery"),
)


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    run(_FUNCTIONS)
    for name, event, function in _TRIGGERS:
        run(f"DROP TRIGGER {name} ON {event.rpartition(' ')[2]}")
        run(f"CREATE TRIGGER {name} {event} FOR EACH ROW WHEN (NOT counts_later()) EXECUTE FUNCTION {function}()")
