"""Studies of what made pictures do for a detector."""
