"""Image data: sources, splits, packed storage and batches."""
