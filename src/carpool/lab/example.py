"""The site that `carpool lab up` plays when no file is given: examples/three-nodes.toml, built in.

A test holds the two together; a wheel does not carry the examples' folder.
"""

from typing import Final

EXAMPLE: Final = """\
# Three machines share one IPv4 and one IPv6 address. `carpool lab up` boots this file.
#
#   eth0  192.0.2.0/24, 2001:db8::/64   clients, and CARP's advertisements
#   eth1  10.9.9.0/24                   a second network between the nodes: a further path

[site]
name = "three-nodes"
secret_file = "/etc/carpool/secret" # mode 0600, a line "1 KEY", the same on every node

[node.alpha]
address = "192.0.2.11"
heartbeat = ["10.9.9.1"]

[node.bravo]
address = "192.0.2.12"
heartbeat = ["10.9.9.2"]

[node.charlie]
address = "192.0.2.13"
heartbeat = ["10.9.9.3"]

[hot.edge]
vhid = 1
interface = "eth0"
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
nodes = ["alpha", "bravo", "charlie"] # alpha is preferred, then bravo
password_file = "/etc/carpool/edge.pass"
interval = "100ms"
"""
