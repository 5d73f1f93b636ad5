"""Hosts as network namespaces on one machine: what the demo, the tests and the benches stand on."""
