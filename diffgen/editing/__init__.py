"""Editing photographs with diffusers pipelines, and the pixel work around it."""
