"""From a detection model to a published SavedModel version, and back to an earlier one.

Importing the package takes no TensorFlow, since going back needs none: `odkeras.model`, which the modules that build
models import, prepares it.
"""
