"""A model that several tools pack."""
