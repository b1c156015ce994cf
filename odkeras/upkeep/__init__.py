"""Checks, repairs and backs up a project."""
