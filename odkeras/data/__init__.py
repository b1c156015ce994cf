"""Convert annotations to TFRecords, ingest the inbox, and store the examples for replay."""
