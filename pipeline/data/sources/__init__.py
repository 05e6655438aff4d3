"""Where images come from, one source to a file; ``table`` names them."""
