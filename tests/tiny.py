"""Settings of a scaled-down project on handwritten digits, which trains in seconds."""

TINY = """\
dataset: digits
data: {root: null, download: false}
imbalance: {profile: exponential, ratios: [10]}
validation: unused
subset_seed: 0
groups: {many_above: 100, few_below: 20}
seeds: [0]
precision: float32
training:
  network: {name: resnet_cifar, depth: 8, width: 8}
  batch_size: 64
  schedule: {epochs: 2}
  learning_rate: {peak: 0.1}
  augmentation: {crop: 1, flip: false, autoaugment: none, cutout: 0}
  evaluate_every: 0
presets: {}
stage_one:
  ce:
    loss: {name: logit_adjusted, gamma: {form: constant, a: 0.0}}
  graloss:
    loss: {name: logit_adjusted, gamma: {form: power, a: 1.0, b: 2.0}}
features: {views: 2}
stage_two:
  joint: {}
  crt: {epochs: 2}
  afg: {generation_epochs: 2, alpha: 0.0, k: 2}
methods:
  CE: {stage_one: ce, stage_two: joint}
  cRT: {stage_one: ce, stage_two: crt}
  GraLoss: {stage_one: graloss, stage_two: joint}
  GLAG: {stage_one: graloss, stage_two: afg}
tables:
  table2:
    caption: A scaled-down table
    rows:
      - {section: End to end, label: CE, method: CE}
      - {section: End to end, label: GraLoss, method: GraLoss}
      - {section: Decoupled, label: cRT, method: cRT}
      - {section: Augmentation, label: GLAG, method: GLAG}
figures:
  gamma: {}
models: {}
sweeps:
  k: {method: GLAG, grid: {stage_two.k: [2]}}
"""
# Two phases, of classes with many images and then of the others, with what the second one needs.
TWO_PHASES = {
    "classes": "rich",
    "rich": {"above": 50},
    "then": [
        {
            "name": "poor",
            "classes": "poor",
            "sampler": "class_balanced",
            "schedule": {"epochs": 2},
            "learning_rate": {"peak": 0.05},
            "bank": {"per_class": 3},
            "retention": "graph_matching",
        }
    ],
    "observers": [{"name": "gradients", "rich": {"above": 50}}],
}
