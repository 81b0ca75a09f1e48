"""Measurements of diffgen: speed, fidelity of labels, the recall check, tiles. Run as `python -m scripts.bench.NAME`."""
