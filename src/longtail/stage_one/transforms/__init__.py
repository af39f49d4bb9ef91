"""Transforms of batches, one file each: `Settings` and `build(settings, class_counts)`."""
