"""Work on any number of images: predictions, TFRecords, hashes. In processes of this machine, or on Apache Beam.

The images are divided into shards. A shard is read, processed and written by one worker, to a file whose name follows
from its number. The file appears complete or not at all, so that a run that was interrupted continues with the shards
that are missing, and a shard that two workers process appears once.
"""
