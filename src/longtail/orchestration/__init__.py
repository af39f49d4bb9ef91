"""Orchestration: which runs are needed, and how they come about.

In: settings. Out: the plan, the commands' instructions in .longtail/plan, and finished runs in the store.
Snakemake and DVC are thin on top of it.
"""
