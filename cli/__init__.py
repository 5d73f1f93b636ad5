"""The `kvnet` command: one module per noun, loaded when it is asked for."""
