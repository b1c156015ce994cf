"""What a host runs: the stream of tasks, the trainer and server processes, and what ties them together."""
