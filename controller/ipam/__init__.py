"""Pure choice of subnets, addresses, VNIs and MACs, and the check of the invariants: no store, no clock, no randomness.

Claims are made by the transactions of the use cases; a choice that lost the race is simply made again.
"""
