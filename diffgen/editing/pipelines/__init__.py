"""What all families share around a diffusers pipeline."""
