"""What the networks are written with: tables of choices, and the typed call of a module."""
