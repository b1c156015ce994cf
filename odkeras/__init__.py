"""Train TensorFlow 2 Object Detection API models in the loop while a person annotates."""

__version__ = "0.1.0"
