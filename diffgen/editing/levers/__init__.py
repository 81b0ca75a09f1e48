"""The pixel levers: each changes a finished edit, at the source's size. Pure: arrays in and out."""
