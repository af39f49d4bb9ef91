"""Export: a finished run as a model to use elsewhere.

In: a run of stage two and all that it is built on. Out: safetensors, ONNX and a model card.
`longtail predict` reads the same folder back.
"""
