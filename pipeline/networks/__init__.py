"""Networks on disk: weights of any origin, networks rebuilt from their descriptions, and what they cost."""
