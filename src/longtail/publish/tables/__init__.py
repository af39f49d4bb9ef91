"""Tables: rows of ours beside the printed ones, as .csv, .md, .tex and .html.

The results of the runs are one frame (`longtail.publish.results`), and a table is groupby and pivot of it.
"""
