"""Settings: what params.yaml and every other settings file may say, typed and checked.

In: a YAML file. Out: immutable blocks with every default filled in; one file a block of params.yaml.
Reading them needs no torch. Their values are hashed, so the code here is not, but for what computes.
"""
