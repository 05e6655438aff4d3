"""What is known before a stage runs: the host, the user's files, the stages and the digests of their code."""
