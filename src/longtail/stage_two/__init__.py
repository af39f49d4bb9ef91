"""Stage two: classifiers over frozen features, one file a method.

In: results/features/RUN. Out: results/stage_two/RUN with classifier, predictions and metrics.
`classifier` says what a method gets and gives, `fitting` is the step.
"""
