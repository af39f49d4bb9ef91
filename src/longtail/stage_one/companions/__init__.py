"""Images that a phase makes of its training images, a file each: `Settings` and `make(settings, context)`."""
