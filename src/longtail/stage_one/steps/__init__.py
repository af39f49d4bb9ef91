"""What a step of training computes, one file each: `Settings` and `build(settings, context)`."""
