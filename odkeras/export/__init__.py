"""From a detection model to a published SavedModel version."""

from odkeras import compat

compat.prepare()
