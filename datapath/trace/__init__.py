"""The way of a packet between two endpoints: what each hop should be, what is there, where they differ first."""
