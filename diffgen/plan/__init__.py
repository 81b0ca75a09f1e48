"""Turns a recipe and a dataset into the jobs of a run, in order, cut into batches."""
