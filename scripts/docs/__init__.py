"""What writes and checks the docs that follow from the code. Run as `python -m scripts.docs.NAME`."""
