"""Tests of behaviour, with real files and processes, and of what holds for the whole of code and documents."""
