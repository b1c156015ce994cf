"""From annotations to TFRecords, and from TFRecords to batches."""
