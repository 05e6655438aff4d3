"""What tests, attacks and benchmarks work on: a small project, stages run one by one, a served package, the rooms."""
