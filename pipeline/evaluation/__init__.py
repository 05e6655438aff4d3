"""What is measured of a student: steps, runtimes, accuracy against latency, trajectories; and the summary of it all."""
