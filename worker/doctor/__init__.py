"""Examines a host: what kvnet needs of it, what is not so, and what to do about it."""
