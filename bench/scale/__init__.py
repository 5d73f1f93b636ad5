"""A thousand hosts on one machine: the worker's own code on kernels in memory, real controllers, a real store."""
