"""Docker's names of network options, and what they are here: the fields of a network that they stand for.

Pure. An option that changes what a network does is never kept and ignored: it is understood, or refused. What stands
in `options` under such a name and the field itself can never say different things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.parsing import MAX_SUBNETS, parse_address
from kvnet.errors import FieldError, Invalid, NotSupported
from kvnet.model import Driver, UplinkMode
from kvnet.rules import MTU_MAX, pointer_part, shown

PREFIX = "com.docker.network."
# As Go's strconv.ParseBool, which is what Docker reads them with.
_TRUE, _FALSE = (
    frozenset({"1", "t", "T", "true", "TRUE", "True"}),
    frozenset({"0", "f", "F", "false", "FALSE", "False"}),
)


def _boolean(text: str, pointer: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise Invalid.field(pointer, f"{shown(text)} is neither true nor false", "'true' or 'false'")


def _number(text: str, pointer: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= MTU_MAX:
        return int(text)
    raise Invalid.field(pointer, f"{shown(text)} is not a number of bytes", "like 1450")


def _text(text: str, pointer: str) -> str:
    if not text:
        raise Invalid.field(pointer, "it is empty", "leave the option out")
    return text


def _is_bridge(text: str, pointer: str) -> UplinkMode:
    if text == "bridge":
        return UplinkMode.MACVLAN
    raise Invalid.field(pointer, f"{shown(text)} is not a mode that kvnet has", "'bridge', or leave it out")


FIELDS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    PREFIX + "bridge.name": ("bridge_name", _text),
    PREFIX + "bridge.enable_icc": ("icc", _boolean),
    PREFIX + "bridge.enable_ip_masquerade": ("masquerade", _boolean),
    PREFIX + "bridge.host_binding_ipv4": ("host_binding", parse_address),
    PREFIX + "driver.mtu": ("mtu", _number),
    PREFIX + "container_iface_prefix": ("interface_prefix", _text),
}
MACVLAN_FIELDS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "parent": ("uplink", _text),
    "macvlan_mode": ("uplink_mode", _is_bridge),
}


def known_options(driver: Driver) -> Mapping[str, tuple[str, Callable[[str, str], Any]]]:
    return {**FIELDS, **MACVLAN_FIELDS} if driver is Driver.TRANSPARENT else FIELDS


def fields_of(options: Mapping[str, str], driver: Driver) -> dict[str, Any]:
    """The fields that these options set, parsed. Options of other names are the user's own.

    Raises:
        Invalid: a value that cannot be read; points at it.
        NotSupported: options of Docker's that kvnet does not know.
    """
    known = known_options(driver)
    unknown = sorted(key for key in options if key.startswith(PREFIX) and key not in known)
    if unknown:
        raise NotSupported(
            f"the option {shown(unknown[0])} is not known here",
            fix=f"leave it out; known are: {', '.join(FIELDS)}",
            errors=[FieldError("/options", f"{shown(key)} is not known here") for key in unknown[:MAX_SUBNETS]],
        )
    found: dict[str, Any] = {}
    for key in sorted(options.keys() & known.keys()):
        field, parse = known[key]
        found[field] = parse(options[key], option_pointer(key))
    return found


def option_pointer(key: str) -> str:
    return f"/options/{pointer_part(key)}"


def option_of(field: str, options: Mapping[str, str], driver: Driver) -> str | None:
    """The option that sets this field, if it is given."""
    return next((key for key, (name, _) in known_options(driver).items() if name == field and key in options), None)


def option_text(value: Any) -> str | None:
    """How a field's value is written as an option; None: it has none, so the option goes."""
    if value is None or value == "":
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
