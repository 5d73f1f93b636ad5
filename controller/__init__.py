"""The HTTP service: validates, chooses and commits. Holds no state that the store does not have."""
