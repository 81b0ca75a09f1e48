"""Recipe × dataset → the jobs of a run, in order, as batches."""
