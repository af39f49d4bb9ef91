"""What is measured of a training while it goes on; an observer changes nothing of it."""
