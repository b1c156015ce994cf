"""Serving: a model server that speaks TensorFlow Serving's REST API, and a client for either server."""
