"""The page that a person opens first: all results of a settings file in one file that needs no network.

In: verified runs, figures and models, and what a check of picture files suspects. Out: index.html.
"""
