"""Publish: tables, figures, models and the report, made of finished runs.

In: verified runs. Out: files of stable names in results/, the same bytes from the same runs.
"""
