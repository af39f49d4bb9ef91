"""Features: what stage one's frozen network makes of every image.

In: a stage-one model and a split. Out: results/features/RUN, read and written as a stream.
"""
