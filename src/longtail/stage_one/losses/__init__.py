"""Losses of stage one, one file each: `Settings` and `build(settings, class_counts)`."""
