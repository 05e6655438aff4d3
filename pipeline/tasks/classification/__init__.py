"""The task classification: labels, logits, accuracy."""
