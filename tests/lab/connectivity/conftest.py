"""A lab whose hosts test each other."""
