"""Methods against each other: many trainings from one teacher, a table and plots."""
