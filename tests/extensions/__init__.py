"""One extension of each kind, as a user would write it: ``tests/test_extensions.py`` puts them into a copy."""
