"""The paths from student to teacher, one to a file; ``models.schedules`` names them."""
