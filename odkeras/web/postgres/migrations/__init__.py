"""The tables of the answer database in PostgreSQL, and how Alembic brings older ones up to date."""
