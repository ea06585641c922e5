"""ANIL: MAML whose inner loop moves the head alone."""

import dataclasses

from jaxmeta.meta.maml import Maml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anil(Maml):
    """Learns features that are common to all tasks, and where their head starts.

    `Maml` with another default of `only`: the inner steps move the last layer, and
    everything before it gets outer gradients alone.

    References:
      Raghu, Raghu, Bengio, Vinyals, "Rapid Learning or Feature Reuse?" (2020).

    Example:
      >>> from jaxmeta.networks.conv import Conv4
      >>> Anil(network=Conv4(features=8, num_classes=5)).only
      ('Dense_0',)
    """

    only: tuple[str, ...] = ("Dense_0",)
    """The names of the head in `params`, such as that of `Conv4`."""
