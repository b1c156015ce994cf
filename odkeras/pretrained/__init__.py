"""Pretrained weights by name: detectors of the model zoo, and backbones of Keras Applications."""
