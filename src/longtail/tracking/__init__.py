"""Finished runs in trackers of experiments: TensorBoard, MLflow, Weights & Biases, Trackio.

In: a finished run of stage two with what it is built on, verified; tables that are published.
Out: the same settings, curves, metrics and tables in the tracker's own store. Nothing of the run changes.
"""
