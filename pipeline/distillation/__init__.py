"""Methods that train a student: networks, objectives, criteria, and their tables."""
