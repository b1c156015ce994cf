"""Adapters for annotation tools of others."""
