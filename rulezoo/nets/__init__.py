"""Building blocks of networks for tasks and for models of your own: plain torch modules with sites."""

from rulezoo.nets.spiking import LIF, SpikingNetwork, spike

__all__ = ["LIF", "SpikingNetwork", "spike"]
