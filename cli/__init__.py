"""The `kvnet` command."""
