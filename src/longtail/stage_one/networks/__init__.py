"""Backbones, a module each: `class Settings` and `build(settings, channels, classes)`."""
