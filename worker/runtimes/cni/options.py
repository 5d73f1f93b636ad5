"""What an ADD asks for: the configuration, its runtime's capabilities and arguments, as a request to attach.

A field that would have to change something is understood or refused, never ignored; what is only told about the
container becomes names and labels. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, cast

from kvnet.errors import Invalid
from kvnet.rules import MAX_ALIASES, MAX_LABEL_VALUE, NAME, shown
from kvnet.wire import NetworkBody, PortBody
from worker.requests import AttachRequest
from worker.runtimes.cni.refusals import CniRefused, Number
from worker.runtimes.cni.request import RUNTIME, Call, as_spelled
from worker.runtimes.fitting import as_name

# The specification's own keys, and ours.
STANDARD = (
    "cniVersion",
    "name",
    "type",
    "args",
    "ipMasq",
    "ipam",
    "dns",
    "runtimeConfig",
    "prevResult",
    "capabilities",
)
OURS = ("network", "create", "socket")
CAPABILITIES = ("ips", "mac", "portMappings", "aliases", "dns")
RESERVED_PREFIX = "cni.dev/"
PROTOCOLS = ("tcp", "udp")
PORT_KEYS = ("hostPort", "containerPort", "protocol", "hostIP")
# What container runtimes tell of a container in CNI_ARGS, and the label that it becomes.
TOLD: Mapping[str, str] = {
    "K8S_POD_NAMESPACE": "k8s.namespace",
    "K8S_POD_NAME": "k8s.pod",
    "K8S_POD_UID": "k8s.uid",
    "NOMAD_REGION": "nomad.region",
    "NOMAD_NAMESPACE": "nomad.namespace",
    "NOMAD_JOB_ID": "nomad.job",
    "NOMAD_GROUP_NAME": "nomad.group",
    "NOMAD_ALLOC_ID": "nomad.alloc",
}
POD = "K8S_POD_NAMESPACE"
SHORT_ID = 12
ALLOC_SHORT = 8


def attach_request(call: Call, endpoint_id: str) -> AttachRequest:
    """
    Raises:
        CniRefused: a field that cannot be done, or says nothing sensible.
        Invalid: a value that no endpoint can have.
    """
    _require_known(call.config)
    capabilities = object_in(call.config, "runtimeConfig")
    for name, value in capabilities.items():
        if name not in CAPABILITIES:
            fix = f"leave it out of 'capabilities'; kvnet has {', '.join(CAPABILITIES)}"
            raise CniRefused(Number.UNSUPPORTED_FIELD, f"runtimeConfig.{name[:64]} = {_told(value)}", fix=fix)
    told = object_in(object_in(call.config, "args"), "cni")
    address, address6 = _addresses(_wanted_addresses(call, capabilities, told))
    name, aliases = names_of(call)
    given = _aliases(capabilities.get("aliases"), call)
    return AttachRequest(
        network=call.network,
        netns=call.netns,
        name=name,
        hostname=name if POD in call.arguments else "",
        address=address,
        address6=address6,
        mac=_text(capabilities.get("mac") or call.arguments.get("MAC") or "", "runtimeConfig.mac").lower(),
        aliases=tuple(dict.fromkeys([*aliases, *given]))[:MAX_ALIASES],
        interface=call.interface,
        labels=labels_of(call, told.get("labels")),
        id=endpoint_id,
        ports=ports_of(capabilities.get("portMappings")),
        reuse=bool(address or address6),
        runtime=RUNTIME,
        external=call.external,
    )


def network_to_create(call: Call) -> NetworkBody | None:
    """What the key `create` says, if it is there: the network that ADD makes where there is none of that name."""
    create = call.config.get("create")
    if create is None or create is False:
        return None
    if create is not True and not isinstance(create, dict):
        raise CniRefused(
            Number.BAD_CONFIGURATION, "'create' is neither true nor an object", fix='like {"driver": "overlay"}'
        )
    body = {} if create is True else dict(create)
    if "name" in body or "id" in body:
        raise CniRefused(Number.BAD_CONFIGURATION, "'create' names the network", fix="'network' does that")
    masquerade = call.config.get("ipMasq")
    return cast(
        NetworkBody, {**({} if masquerade is None else {"masquerade": masquerade}), **body, "name": call.network}
    )


def names_of(call: Call) -> tuple[str, list[str]]:
    """The endpoint's name, and names that it has besides."""
    told = call.arguments
    if told.get("K8S_POD_NAME"):
        within = f"{told['K8S_POD_NAME']}.{told[POD]}" if told.get(POD) else ""
        return as_name(told["K8S_POD_NAME"]), [within] if NAME.match(within) else []
    group, job, alloc = (told.get(f"NOMAD_{key}", "") for key in ("GROUP_NAME", "JOB_ID", "ALLOC_ID"))
    if alloc:
        name = as_name("-".join(filter(None, (job, group, alloc[:ALLOC_SHORT]))))
        return name, [as_name(text) for text in (group, job) if text]
    is_hash = len(call.container) > SHORT_ID and set(call.container) <= set("0123456789abcdef")
    return as_name(call.container[:SHORT_ID] if is_hash else call.container), []


def labels_of(call: Call, given: object) -> dict[str, str]:
    labels = {f"{RUNTIME}.container": call.container, f"{RUNTIME}.network": call.name}
    for name, label in TOLD.items():
        # Podman calls every container a pod's, for a plugin that it once had; without a namespace it is none.
        if call.arguments.get(name) and (POD in call.arguments or not label.startswith("k8s.")):
            labels[label] = call.arguments[name]
    for item in _list(given, "args.cni.labels"):
        key, value = (item.get("key"), item.get("value")) if isinstance(item, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str):
            raise CniRefused(Number.BAD_CONFIGURATION, 'a label is not {"key": text, "value": text}')
        labels[key] = value
    return {key: value[:MAX_LABEL_VALUE] for key, value in labels.items()}


def ports_of(given: object) -> tuple[PortBody, ...]:
    """As CNI's own plugin has it, a mapping names both ports; nobody is given one that was not asked for."""
    ports: list[PortBody] = []
    for item in _list(given, "runtimeConfig.portMappings"):
        item = as_spelled(item, PORT_KEYS) if isinstance(item, dict) else item
        if not isinstance(item, dict) or not set(item) <= set(PORT_KEYS):
            raise CniRefused(
                Number.BAD_CONFIGURATION, f"portMappings has {_told(item)}", fix=f"objects with {', '.join(PORT_KEYS)}"
            )
        for name in ("hostPort", "containerPort"):
            number = item.get(name)
            if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 1 << 16:
                raise CniRefused(Number.BAD_CONFIGURATION, f"portMappings: {name} {_told(number)} is not a port")
        port: PortBody = {"port": item["containerPort"], "host_port": item["hostPort"]}
        port["protocol"] = _text(item.get("protocol") or "tcp", "portMappings: protocol").lower()
        if port["protocol"] not in PROTOCOLS:
            raise CniRefused(
                Number.BAD_CONFIGURATION, f"portMappings: protocol {_told(item['protocol'])}", fix="tcp, udp"
            )
        if item.get("hostIP"):
            port["host_address"] = _host_address(item["hostIP"])
        if port not in ports:
            ports.append(port)
    return tuple(ports)


def _wanted_addresses(call: Call, capabilities: Mapping[str, Any], told: Mapping[str, Any]) -> list[Any]:
    """Of several ways to say it the newest counts, as the conventions have it."""
    for given, where in ((capabilities.get("ips"), "runtimeConfig.ips"), (told.get("ips"), "args.cni.ips")):
        if given:
            return _list(given, where)
    return [text for text in call.arguments.get("IP", "").split(",") if text]


def _addresses(given: Iterable[Any]) -> tuple[str, str]:
    found: dict[int, str] = {}
    for item in given:
        try:
            address = ip_interface(_text(item, "an address")).ip
        except ValueError as error:
            raise CniRefused(
                Number.BAD_CONFIGURATION, f"{_told(item)} is not an address", fix="like 10.1.0.7"
            ) from error
        if address.version in found:
            raise CniRefused(
                Number.UNSUPPORTED_FIELD,
                f"ips = {found[address.version]}, {address}: an interface has one address of each family here",
            )
        found[address.version] = str(address)
    return found.get(4, ""), found.get(6, "")


def _host_address(given: object) -> str:
    try:
        return str(ip_address(_text(given, "portMappings: hostIP")))
    except ValueError as error:
        raise CniRefused(Number.BAD_CONFIGURATION, f"portMappings: hostIP {_told(given)} is not an address") from error


def _aliases(given: object, call: Call) -> list[str]:
    """A list of names; podman gives one for each of its networks."""
    if isinstance(given, dict):
        given = given.get(call.name)
    return [as_name(_text(item, "an alias")) for item in _list(given, "runtimeConfig.aliases")]


def _require_known(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key not in STANDARD and key not in OURS and not key.startswith(RESERVED_PREFIX):
            import difflib  # rarely needed, and a worker is to be small

            near = difflib.get_close_matches(key, OURS + STANDARD, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"leave it out; kvnet's own keys are {', '.join(OURS)}"
            raise CniRefused(Number.UNSUPPORTED_FIELD, f"{key[:64]} = {_told(value)}", fix=fix)
    ipam = object_in(config, "ipam")
    if ipam:
        fix = "leave it out: the network's addresses come from kvnet, the same on all hosts"
        raise CniRefused(Number.UNSUPPORTED_FIELD, f"ipam = {_told(ipam)}", fix=fix)
    if not isinstance(config.get("ipMasq", False), bool):
        raise CniRefused(Number.BAD_CONFIGURATION, f"ipMasq = {_told(config['ipMasq'])}", fix="true or false")
    if not isinstance(config.get("socket", ""), str):
        raise CniRefused(Number.BAD_CONFIGURATION, f"socket = {_told(config['socket'])}", fix="the path of a socket")


def object_in(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CniRefused(Number.BAD_CONFIGURATION, f"{key} is not an object")
    return found


def _list(given: object, where: str) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise CniRefused(Number.BAD_CONFIGURATION, f"{where} is not a list")
    return given


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what} is not a text")
    return value


def _told(value: object) -> str:
    return shown(str(value))
