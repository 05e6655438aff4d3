"""The bodies of the meta-encoders, one to a file; ``models.meta_encoders`` names them."""
