"""Front ends that show tasks and collect answers: Prodigy, the web page, and a simulation from ground truth."""
