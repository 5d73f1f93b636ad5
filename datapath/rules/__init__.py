"""What firewall rules of other programs do to a packet. Pure; nothing in here reads a host or changes one."""
