"""Measuring an edit, and judging what was measured."""
