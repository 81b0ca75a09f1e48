"""How the embedded model was made: renderer, training, measurements. Research, not part of diffgen; see README.md."""
