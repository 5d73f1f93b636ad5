"""Podman as a runtime, through netavark's plugin API: `kvnet-netavark` carries the calls, this answers.

Podman keeps a copy of every network that it was told to create; the network itself is kvnet's, the same on all hosts,
and what Podman removes is its copy only: the API has no word for more.
"""
