"""Long-tailed image recognition as a reproducible workflow: one module a step, named as its rule."""
