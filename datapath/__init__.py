"""What networks mean on one host: pure functions from specifications to kernel objects. No I/O, no clock, no store."""
