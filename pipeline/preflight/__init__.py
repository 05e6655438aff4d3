"""What is known before a stage runs: the host, the user's files, the stages, digests of their code."""
