"""The user's commands, one to a file; what each needs is imported when it runs."""
