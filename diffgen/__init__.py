"""Edit the photographs of a labelled detection dataset with latent diffusion; every label stays true."""

__version__ = "0.1.0"
