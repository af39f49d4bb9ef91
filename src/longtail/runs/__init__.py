"""Runs: what a finished run is, where it is kept, and how it is recognised.

In: settings as text and the code that computes. Out: identities, verified folders, run.json.
Used by every room above it; nothing here computes a result.
"""
