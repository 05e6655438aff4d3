"""The methods that train a student: their networks, objectives and criteria, with the tables that name them."""
