"""Tables: rows of ours beside the printed ones, as .csv, .md, .tex and .html.

A table holds nothing that changes from one making to the next, such as a date or a duration: the same
runs give the same bytes.
"""
