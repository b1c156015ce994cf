"""The annotation loop that every host runs: the task stream, the trainer and server processes, and their connection."""
