"""What a consumer downloads: written, read, verified, and used without PyTorch."""
