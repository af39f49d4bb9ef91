"""Losses that hold features of exemplars to what they were before a phase: `Settings`, `build(settings)`."""
