"""Around a diffusers pipeline: what the families share."""
