"""Publish SavedModel versions of a detection model, and roll back to an earlier version.

Importing the package does not import TensorFlow, since a rollback does not need it. The modules that do need it import
`odkeras.model`, which prepares TensorFlow.
"""
