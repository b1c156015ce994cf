"""Detection models of the Object Detection API: build, restore, run. Importing it runs `compat.prepare()`."""

from odkeras import compat

compat.prepare()
