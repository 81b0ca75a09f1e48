"""What comes in: images, labels and splits of a dataset in any supported format."""
