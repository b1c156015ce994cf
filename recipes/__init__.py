"""Prodigy recipes; the package `odkeras.recipes` once installed. Nothing is imported here: each file is a recipe."""
