"""What is measured: steps, runtimes, accuracy against latency, and the summary."""
