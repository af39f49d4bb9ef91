"""Long-tailed image recognition as a reproducible workflow.

Data flows through one room a step: data, stage_one, features, stage_two, publish. Imports go one way (docs).
"""
