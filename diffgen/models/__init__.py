"""Models and networks: which files they are, what they need, how to get them."""
