"""File and wire formats of annotations, one module each."""
