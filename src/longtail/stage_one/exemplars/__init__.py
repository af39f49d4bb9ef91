"""Choices of the images that stand for a class in a memory, one file each: `Settings` and `choose(...)`."""
