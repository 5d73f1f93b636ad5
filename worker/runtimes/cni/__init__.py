"""The Container Network Interface (1.1.0 and back to 0.3.1) as a runtime: `kvnet-cni` carries the calls, this answers.

An attachment is named by its list's name, container and interface, so that a call that is repeated, or comes after a
crash, means the same endpoint. Calls the controller and the kernel only through the worker's own hands.
"""
