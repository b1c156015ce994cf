"""`prodigy.components`: database, loaders, streams."""
