"""Docker as a runtime: libnetwork's network and IPAM driver, and one network on every host's Docker.

Two halves that know each other only through `ledger`: the plugin answers Docker's calls and never calls Docker; the
follower calls Docker and listens to its events, and never answers it. Both are of no use to other runtimes.
"""
