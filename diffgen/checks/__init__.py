"""Measuring an edit, and judging it by the measurements."""
