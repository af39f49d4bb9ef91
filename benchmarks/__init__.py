"""Measurements of the project's speed: each stage in the peers' shape against ours, interleaved in one run.

    make bench                                      # all parts; writes benchmarks/latest.json
    python -m benchmarks training augmentation      # some parts; replaces their rows there
    python -m benchmarks --quick                    # all parts in small, for a look; writes nothing

Needs no data: images are noise in CIFAR's shape and CIFAR-100-LT's class sizes, features are noise around
class means, photographs are drawn from a seed. No other measured time depends on the content. Results:
docs/explanation/performance.md.
"""
