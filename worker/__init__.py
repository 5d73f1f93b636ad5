"""The per-host agent: makes the kernel match the keys that concern this host."""
