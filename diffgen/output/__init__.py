"""The judged plan and what is written from it: the exported dataset, the manifest and the report."""
