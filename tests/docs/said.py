"""What the reference needs a person for: what keys are for, what conditions mean, what variables are.

`test_reference` asks that everything the product has is told here, and that nothing is told that it has not.
"""

from __future__ import annotations

# page -> how it begins
INTRO = {
    "cli": (
        "What they are for, what they print and how they end: [the command line](../cli.md). `--controller`, "
        "`--socket` and `--token-file` may stand before or after a command."
    ),
    "api": (
        "How it behaves (errors, versions, paging, waiting, plans, events): [the HTTP API](../api.md). The "
        "same as a document: [openapi.json](../openapi.json), and with *try it out* at `/docs` of every "
        "controller."
    ),
    "errors": (
        "An error says what happened, why, and what to do (`fix`). Its `code` is stable; scripts match on it: "
        "`kvnet ... -o json`, and [problems](../api.md) of the API. The exit code of the command follows from "
        "the status: [exit codes](../cli.md#exit-codes)."
    ),
    "problems": (
        "Entries of type `problem` in `status.conditions` of networks and hosts, in `kvnet status` and `kvnet "
        "network describe`: what cannot be built on a host, or will not work as asked. The text has the "
        "numbers."
    ),
    "keys": (
        "All below one root (`/kvnet` unless the store URL says otherwise); `kvnet/keys.py` is the only place "
        "that spells one. Values are JSON with a schema version (`kvnet/codec.py`), but for `names/`, `vnis/` "
        "and `local/`, which hold a network's id. Look with the store's own tools as much as you like; write "
        "through kvnet only. How a store keeps them, and what it keeps besides: [stores](../stores.md)."
    ),
    "configuration": (
        "There is no configuration file to keep in step: a controller and a worker are told everything by "
        "options or environment (an option beats the environment), and the rest is in the store. With systemd "
        "the environment stands in `/etc/kvnet/controller.env` and `/etc/kvnet/worker.env` "
        "(`packaging/systemd`)."
    ),
}

FILES = [
    (
        "`/var/lib/kvnet`",
        "worker",
        "what it remembers of attachments, session and store (`--state-dir`): [worker](../worker.md)",
    ),
    (
        "`/var/lib/kvnet/identity`",
        "worker",
        "who this host is: token, key, certificate, CA, for root only: [TLS](../how-to/tls.md)",
    ),
    ("`/run/kvnet-raw.sock`", "worker", "where it asks for raw sockets (`KVNET_RAW_SOCKETS`)"),
    ("`/run/kvnet/worker.sock`", "worker", "where `kvnet attach`, `plan` and runtimes' plugins ask it (`--socket`)"),
    ("`/run/docker/plugins/kvnet.sock`", "worker", "where Docker asks it (`--docker-plugin`): [Docker](../docker.md)"),
    (
        "`/etc/netns/NAME/resolv.conf`",
        "worker",
        "a namespace's name server (`--namespace-files`): [names](../names.md)",
    ),
    (
        "`/var/lib/kvnet/kvnet.db`",
        "controller",
        "the SQLite store, unless `--store` says otherwise: [stores](../stores.md)",
    ),
]

# name in kvnet.keys -> what it holds, who writes, who watches
KEYS: dict[str, tuple[str, str, str]] = {
    "CLUSTER": (
        "the cluster's id and schema: the sentinel. Absent or changed: nobody sweeps anything",
        "the first controller",
        "all",
    ),
    "ACCEPTED": (
        "that a store which went back in time is to be taken as it is ([upkeep](../upkeep.md))",
        "`kvnet store accept`",
        "all",
    ),
    "RESTORING": (
        "that a restore is under way: nobody starts on it, changes or removes anything",
        "`kvnet restore`",
        "all",
    ),
    "SUBNET_GUARD": (
        "a counter, rewritten by every transaction that adds or removes a subnet: the lock that orders them",
        "controllers",
        "-",
    ),
    "TOKEN_GUARD": ("the same for tokens", "controllers", "-"),
    "LEVEL": (
        "the level that the cluster writes at: what its oldest controller and workers understand",
        "controllers",
        "all",
    ),
    "REPLICAS": (
        "`<name>`: which levels a controller understands; bound to its session",
        "that controller",
        "controllers",
    ),
    "RESERVATION_GUARD": ("the same for reservations", "controllers", "-"),
    "LEADER": ("which controller does the upkeep; bound to its session", "controllers", "controllers"),
    "META": ("the prefix of the above", "", "all"),
    "GUARDS": ("the prefix of the guards", "", "-"),
    "LEADERS": ("the prefix of the leader's key", "", "controllers"),
    "POOLS": (
        "`<name>`: a block that subnets are cut from, their size, what is reserved",
        "controllers",
        "controllers",
    ),
    "SUBNETS": ("`<address>_<length>`: whose the subnet is: a network's, a hold's", "controllers", "controllers"),
    "NAMES": ("`<name>`: the network's id; so a name is unique", "controllers", "controllers"),
    "VNIS": ("`<number>`: the network's id", "controllers", "-"),
    "NETWORKS": ("`<id>`: the network", "controllers", "controllers; workers that take part"),
    "ADDRESSES": (
        "`<network>/<address>`: whose the address is: an endpoint's, a reservation's, nobody's while it cools down",
        "controllers",
        "controllers",
    ),
    "ENDPOINTS": (
        "`<network>/<id>`: host, addresses, MAC, names, ports",
        "controllers",
        "controllers; workers that take part",
    ),
    "LOCAL": (
        "`<host>/<endpoint>`: the network's id: what a host carries, and so which networks it takes part in",
        "controllers",
        "that host's worker",
    ),
    "HOSTS": ("`<host>`: underlay address, MTU, abilities: what peers need", "that host's worker", "all"),
    "INVENTORY": (
        "`<host>`: routes, addresses and resolvers in use, versions: what a controller needs",
        "that host's worker",
        "controllers",
    ),
    "ALIVE": ("`<host>`: that its worker lives; bound to the worker's session", "that host's worker", "controllers"),
    "OBSERVED": ("`<host>`: per network the version applied, and its problems", "that host's worker", "controllers"),
    "JOURNAL": (
        "`<time>-<id>`: who changed what, when, in which request, before and after; bounded",
        "controllers",
        "controllers",
    ),
    "RECLAIMS": (
        "`<host>`: since when a host is absent, as evidence for the release of its endpoints",
        "the controller that does the upkeep",
        "controllers",
    ),
    "BLOCKS": (
        "`<network>/<address>_<length>`: which host has this part of a routed network",
        "controllers",
        "controllers; workers that take part",
    ),
    "PORTS": ("`<host>/<protocol>_<first>`: who has which of 64 host ports", "controllers", "controllers"),
    "BRIDGES": ("`<device>`: the network whose bridge is to have this name", "controllers", "controllers"),
    "QUESTIONS": (
        "`<host>/<id>`: what a controller asks a host's worker; deleted when it is answered",
        "controllers",
        "that host's worker",
    ),
    "ANSWERS": ("`<id>`: what the worker answered", "that host's worker", "the controller that asked"),
    "AUTHENTICATION": ("that every replica asks for a credential", "who makes the first token", "controllers"),
    "TOKENS": ("`<id>`: a credential: its role, limits and the hash of its secret", "controllers", "controllers"),
    "SECRETS": ("`<name>`: what all replicas share and nobody else may know", "controllers", "controllers"),
    "SEALS": ("`<number>`: a link of the chain that seals the journal", "the elected controller", "controllers"),
    "JOURNAL_FLOOR": ("up to which revision the journal was trimmed", "controllers", "controllers"),
}

# code -> what to do, where many places raise it or none says so
FIXES: dict[str, str] = {
    "addresses-exhausted": "`kvnet network update NAME --grow-subnet CIDR` or `--add-subnet CIDR`",
    "conflict": "what the error says: something is there that must go first, or was faster; look again, then repeat",
    "contention": "repeat it in a moment",
    "foreign-object": "rename or remove what the error names, or choose another `bridge_name`",
    "idempotency-key-reused": "another Idempotency-Key for another request",
    "invalid": "what the error says; `errors` points at each field, with what would be right",
    "malformed": "what the error says: quotes, commas, braces, the Content-Type",
    "not-found": "look at what is there: `kvnet network ls`, `kvnet endpoint ls`, `kvnet host ls`",
    "store-went-back": "bring the right store back, or `kvnet store accept` if it is meant to be as it is",
    "subnet-taken": "leave it out and kvnet chooses a free one, or choose another; the error names whose it is",
    "subnets-exhausted": "a larger or another pool: `kvnet pool create`; the error lists what blocks each",
    "vni-taken": "leave the VNI out and kvnet chooses a free one",
}

# Calls whose first argument is the code of something that a worker reports.
CODES_BY_CALL = frozenset({"Condition", "Doubt", "Trouble", "Finding"})

# code -> what it means, what to do
CONDITIONS: dict[str, tuple[str, str]] = {
    "another-cluster": (
        "the store that this host reads is another cluster's than the one it is in",
        "give the worker the right controller; if the change is meant, restart it once with `--accept-store`",
    ),
    "block-missing": ("an endpoint's address is in no block of this host (routed)", "`kvnet check --repair`"),
    "bridge-full": (
        "more than 1,023 ports on the bridge here; the newest endpoints get no interface",
        "move workloads to another host, or to another network",
    ),
    "cluster-missing": (
        "the store has no `meta/cluster`: it is empty, or none of kvnet's",
        "bring the store back; `kvnet restore FILE` if it is lost ([backup](../backup.md))",
    ),
    "dns-port-taken": (
        "another program of the host has port 53 of the address for names",
        "make it listen on its own addresses only; it is tried again",
    ),
    "dns-unavailable": (
        "the kernel does not let the worker answer at the address for names; its words are in the text",
        "what the text says; `--dns off` does without",
    ),
    "docker-away": ("this host's Docker does not answer", "`systemctl status docker`"),
    "docker-container-given-up": (
        "a container that Docker was to keep running was started ten times in vain after the controller had been away",
        "`docker start` it, and read what Docker says",
    ),
    "docker-endpoint-unknown": (
        "a container has an interface that this worker has no record of",
        "restart the container",
    ),
    "docker-refused": (
        "this host's Docker cannot be given the network, or freed of it; its words are in the text",
        "what the text says: another driver's network has the name, say",
    ),
    "docker-unfit": (
        "this host's Docker cannot have such a network: one without IPv4 needs API 1.47",
        "Docker 28 or newer there",
    ),
    "family-unreachable": (
        "the underlay cannot carry the block's family (routed)",
        "a network with `cross_segment=tunnel`",
    ),
    "foreign-object": (
        "a link that is not kvnet's has the name or the VNI that the network needs; it is never touched",
        "remove or rename that link; the text names it",
    ),
    "forward-blocked": (
        "a chain of another firewall drops what kvnet forwards; the text names table and chain",
        "let it pass there: [firewall](../firewall.md#walls-firewalld-and-others)",
    ),
    "host-name-taken": ("another machine's worker has this host's name", "give one of them another `--host`"),
    "kernel-lacks": (
        "the kernel has not what the network takes; the text names the module",
        "load or build it; `kvnet doctor` lists all that is missing",
    ),
    "kernel-refused": (
        "the kernel refused an operation; its words are in the text",
        "tried again with growing pauses; `kvnet plan` shows what is left to do",
    ),
    "mtu-impossible": (
        "the network's MTU does not fit the hosts' links, or what fits is too little",
        "`kvnet network update NAME --mtu N`, or raise the links'",
    ),
    "namespace-gone": ("the namespace of a workload is gone", "none: its endpoint is released"),
    "neighbours-full": (
        "the machine's neighbour table overflows; the text names the limit and the setting",
        "raise that sysctl",
    ),
    "peer-not-adjacent": (
        "a router is between the hosts, and `cross_segment` is `refuse` (routed)",
        "a network with `cross_segment=tunnel`, or put the hosts on one segment",
    ),
    "peer-unknown": (
        "a host has endpoints or blocks and has not registered",
        "start its worker, or `kvnet host rm NAME --force`",
    ),
    "peer-unreachable": (
        "a host's underlay is of the other family",
        "give one of them an underlay of the other's family",
    ),
    "repairs-paused": (
        "somebody paused the repairs of this host (`kvnet host pause`)",
        "`kvnet host resume NAME`, or wait",
    ),
    "shared-address": ("two endpoints have one MAC or address; the newest has it", "`kvnet check`"),
    "store-broken": (
        "a value cannot be read, so what it is about is left as it is",
        "`kvnet check` says which; from a backup",
    ),
    "store-unavailable": (
        "the worker cannot read the store; the text says why",
        "traffic goes on; bring controller or store back",
    ),
    "store-went-back": (
        "the store is older than what this host has seen of it",
        "bring the right store back, or `kvnet store accept` ([upkeep](../upkeep.md#a-store-that-is-not-believed))",
    ),
    "underlay-missing": (
        "the underlay address is gone, and its device has no other of its family; tunnels stay as they are",
        "give the host an address, or restart the worker with another `--underlay`",
    ),
    "uplink-down": ("the uplink is down: everything is built, nothing passes (transparent)", "`ip link set UPLINK up`"),
    "uplink-in-use": (
        "the uplink has addresses or a bridge already, or something stands on it (transparent)",
        "another uplink, or move what is there",
    ),
    "uplink-missing": (
        "there is no such link here; the network stays as it is until there is (transparent)",
        "plug it in, or make it",
    ),
    "uplink-mtu": (
        "the network's MTU is larger than the uplink's, which is used (transparent)",
        "raise the uplink's, or lower the network's",
    ),
    "vni-missing": ("it has no VNI, so it cannot be built", "`kvnet check`"),
}

# reason -> of what, what it means
REASONS: dict[str, tuple[str, str]] = {
    "active": ("network, ready", "it works on every living host that carries it"),
    "alive": ("host, ready", "its worker lives and reports nothing that is in the way"),
    "applied": ("converged", "every living host that takes part has the newest change in its kernel"),
    "attached": ("endpoint, ready", "its host has it, and a workload has its interface"),
    "behind": ("converged, ready", "a host has not applied the newest change yet; the detail names which"),
    "deleting": ("network, ready", "it is being deleted"),
    "down": ("host", "its worker is gone"),
    "host-down": ("endpoint, ready", "its host is down, so nobody can say"),
    "hosts-down": ("network", "all hosts that carry it are down, so nobody can say"),
    "naming": ("network, ready", "Docker is making it and has not told its name yet"),
    "no-hosts": ("network", "it has no endpoints yet, so there is nothing to apply"),
    "no-networks": ("host, converged", "it carries no endpoints"),
    "not-attached": (
        "endpoint, ready",
        "no workload has its interface: it was made over the API, or its attach is under way",
    ),
    "not-told": ("endpoint, ready", "its host does not say whether a workload has its interface"),
    "planned": ("all", "the answer to a dry run: it does not exist yet"),
    "starting": ("host, ready", "its worker has begun and has not reported yet"),
    "store-away": ("all", "the controller is cut off from its store; what it shows is as old"),
    "store-not-believed": ("all", "the store went back in time, or is another cluster's: nothing can be said"),
}

# variable -> who reads it, what it is
VARIABLES: dict[str, tuple[str, str]] = {
    "KVNET_BOOTSTRAP_TOKEN_FILE": (
        "controller",
        "where the first admin's token comes from or goes to (`--bootstrap-token-file`)",
    ),
    "KVNET_CA": ("CLI, worker", "the only CA that controllers are believed of (`--ca-file`): [TLS](../how-to/tls.md)"),
    "KVNET_CA_DIR": ("controller, CLI", "the directory of a CA (`--ca`): [TLS](../how-to/tls.md)"),
    "KVNET_CERTIFICATE": ("CLI, worker", "a certificate to show the controller (`--certificate`)"),
    "KVNET_CLUSTER": ("controller, worker", "refuse any store but this cluster's (`--cluster`)"),
    "KVNET_CONTROLLER": ("CLI, worker", "where the controller is (`--controller`)"),
    "KVNET_DNS": ("worker", "where workloads ask for names, or `off` (`--dns`)"),
    "KVNET_DOCKER": ("worker", "`auto` or `off` (`--docker`)"),
    "KVNET_HOST": ("worker", "this host's name (`--host`)"),
    "KVNET_KEY": ("CLI, worker", "the key of that certificate (`--key`)"),
    "KVNET_LISTEN": ("controller", "where it listens (`--listen`)"),
    "KVNET_LOG_FORMAT": ("controller, worker", "how the log is written (`--log-format`)"),
    "KVNET_LOG_LEVEL": ("controller, worker", "how much is written (`--log-level`)"),
    "KVNET_METRICS": ("worker", "where it serves its metrics (`--metrics`): [observability](../observability.md)"),
    "KVNET_NAMESPACE_FILES": ("worker", "where `ip netns exec` finds a namespace's resolv.conf (`--namespace-files`)"),
    "KVNET_NFT": ("worker", "the `nft` program, where it is not in PATH"),
    "KVNET_OTEL": ("controller, worker", "where spans are sent (`--otel`): [observability](../observability.md)"),
    "KVNET_OUTPUT": ("CLI", "how lists and objects are printed unless `-o` says so"),
    "KVNET_PROFILE": ("CLI", "which profile to use (`--profile`): [profiles](../cli.md)"),
    "KVNET_REQUEST_ID": ("CLI", "the request id that a command sends, found again in logs, events and traces"),
    "KVNET_RAW_SOCKETS": ("worker", "where raw sockets are opened for it: [worker](../worker.md#what-it-may)"),
    "KVNET_SOCKET": ("CLI, worker, runtimes' plugins", "the worker's socket (`--socket`)"),
    "KVNET_STORE": ("controller, backup, restore", "the store (`--store`): [stores](../stores.md)"),
    "KVNET_STORE_PASSWORD": ("controller, worker", "the store user's password"),
    "KVNET_STORE_PASSWORD_FILE": ("controller, worker", "a file that has it, read again when it is refused"),
    "KVNET_STORE_TOKEN": ("controller, worker", "Consul's token"),
    "KVNET_STORE_TOKEN_FILE": ("controller, worker", "a file that has it, read again when it is refused"),
    "KVNET_STORE_USER": ("controller, worker", "the store's user, where the URL names none"),
    "KVNET_TOKEN": ("CLI, worker", "the token itself: [tokens](../how-to/tokens.md)"),
    "KVNET_TOKEN_FILE": ("CLI", "a file that has it (`--token-file`)"),
    "KVNET_UNDERLAY": ("worker", "this host's address towards the others (`--underlay`)"),
}
# Of the project's own tests and demo.
INTERNAL = frozenset({"KVNET_LAB_INSIDE"})
