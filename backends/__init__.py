"""The store: one contract (`store.py`) and its adapters. Knows nothing of networks; keys and bytes only."""
