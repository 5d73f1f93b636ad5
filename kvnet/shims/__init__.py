"""Programs that runtimes start once per container: each carries one question to the worker, and its answer back.

Standard library only, and as little of it as will do: every start of a container waits for theirs.
"""
