"""The simulated annotator: `odkeras simulate` answers every task from known boxes and measures the model."""
