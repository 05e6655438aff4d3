"""The command line: one thin module per DVC stage, and the user's commands in ``python -m stages``."""
