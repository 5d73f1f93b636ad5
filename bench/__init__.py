"""Measures the published figures against the real thing: real processes, real sockets, real store files, real kernel.

Every figure is printed with its target and whether it is met; nothing here is imported by the product.
"""
