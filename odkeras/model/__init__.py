"""Detection models of the Object Detection API: building, inference, weights."""

from odkeras import compat

compat.prepare()
