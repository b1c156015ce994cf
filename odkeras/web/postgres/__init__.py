"""The answer database in PostgreSQL: one database for several page processes."""
