"""Stage one: train a network on a long-tailed split.

In: a split and its images. Out: results/stage_one/RUN with the network after the last epoch.
`training` is the step; a recipe names a file of losses, samplers, transforms, observers, networks.
"""
