"""kvnet's vocabulary: the nouns, keys, errors and codec that every other room shares. Imports nothing of ours."""

__version__ = "0.1.0"
