"""Label formats of other tools, written one answer at a time. One module for each format, with a `LabelWriter`."""
