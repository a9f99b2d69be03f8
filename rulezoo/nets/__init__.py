"""Building blocks of networks for tasks and for models of your own: plain torch modules with sites."""

from rulezoo.nets.rate import GRU, LeakyRNN
from rulezoo.nets.spiking import LIF, SpikingNetwork, spike

__all__ = ["GRU", "LIF", "LeakyRNN", "SpikingNetwork", "spike"]
