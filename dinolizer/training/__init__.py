"""A manifest becomes a head."""
