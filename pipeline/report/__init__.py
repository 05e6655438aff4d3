"""What people look at after a run: headline figures, tables, plots, galleries, and one page that holds them."""
