"""`diffgen tune`: settings that bring edits near unlabelled pictures of the target."""
