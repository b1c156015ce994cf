"""The annotation session behind every front end: the task stream, the trainer and server processes."""
