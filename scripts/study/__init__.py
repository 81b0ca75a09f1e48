"""Studies of what synthetic images do for a detector."""
