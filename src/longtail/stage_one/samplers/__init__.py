"""Samplers of training images, one file each: `Settings` and `indices(...)`, the images of one epoch."""
