"""The family `instruct`: how it edits, and a file for each kind of pipeline that it calls."""
