"""Names: every host's worker answers for the workloads on its host, and asks the host's resolvers for the rest.

`zone` says what a name means to whoever asks, `askers` who that is, `answers` makes the messages, `forward` asks
others, `server` has the sockets, `resolv` tells plain namespaces where to ask, `service` puts them together.
"""

from worker.dns.lean import without_options

without_options()
