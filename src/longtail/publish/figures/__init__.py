"""Figures: one module a kind, with `Settings` and `draw(job)`; `drawing` is what they share."""
