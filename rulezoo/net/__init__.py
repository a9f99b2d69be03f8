"""Networks as pure functions of their parameters, with named sites.

A `Site` is a point of a network where a rule may read, replace or cut activity. It is an identity unless `Net.run` is
given a tap. Sites are what rules know of a network; nothing here knows of any rule.

- `network`: a module as a function of what one seed has of it; `reading`: how it comes to be known; `functional`: how a
  module is called with other tensors.
- `sites`: the points where rules read and cut; `placement`: where they go by themselves.
- `layers`: the operations with a weight, and how they hang together with sites; `tracing`: how that is seen.
- `calls`: the functions of torch that mean something here; `dropout`: those that draw.
- `purity`: what a pass may not leave behind.
"""

from rulezoo.net.errors import NetError
from rulezoo.net.functional import Tensors
from rulezoo.net.layers import Layer, Use
from rulezoo.net.network import Net, Values
from rulezoo.net.sites import Kind, Site, Tap, Visit, add_sites

__all__ = [
    "Kind",
    "Layer",
    "Net",
    "NetError",
    "Site",
    "Tap",
    "Tensors",
    "Use",
    "Values",
    "Visit",
    "add_sites",
]
