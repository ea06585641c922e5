"""Accelerators as their makers publish them: how long arithmetic and exchanges take.

A model and no measurement. Arithmetic takes `FLOP / peak`; an exchange takes `bytes
sent / bandwidth + hops x latency`, over all links of a chip at once.
"""

import abc
import dataclasses
import math

from jaxmeta.core.collectives import Collective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip(abc.ABC):
    """An accelerator among others of its kind.

    Example:
      >>> CHIPS["v5e"].compute_seconds(197e12)
      1.0
    """

    peak: float
    """FLOP/s of bfloat16 matrix products; nothing that runs is ever faster."""

    def compute_seconds(self, flops: float) -> float:
        """Seconds of arithmetic at the peak."""
        return flops / self.peak

    @abc.abstractmethod
    def exchange_seconds(self, exchange: Collective) -> float:
        """Seconds of one exchange, all times that a program does it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torus(Chip):
    """A TPU, joined to its neighbours along two or three axes that close to rings.

    Of n chips an axis has `n^(1/axes)`, and the farthest is `axes n^(1/axes) / 2` hops
    away. An all-gather takes as many steps, an all-reduce twice as many. What all chips
    send to all takes the links of half as many hops on average.

    References:
      Austin et al., "How to Scale Your Model" (2025), parts 2 and 3
      (jax-ml.github.io/scaling-book): the equations, and 1 us a hop.

    Example:
      16 hops of 1 us twice; the bytes hardly count:

      >>> exchange = Collective("all-reduce", 100_000, 256, 1.0)
      >>> round(CHIPS["v5e"].exchange_seconds(exchange) * 1e6, 1)
      33.0
    """

    axes: int
    """Of the torus: 2 or 3."""

    bytes_per_second: float
    """What a chip sends along all axes, both ways; half of what is published as its
    bidirectional bandwidth, which counts what it receives too."""

    hop_seconds: float = 1e-6
    """From a chip to its neighbour."""

    def exchange_seconds(self, exchange: Collective) -> float:
        farthest = self.axes * exchange.group_size ** (1 / self.axes) / 2
        hops = {"all-reduce": 2 * farthest, "collective-permute": 1.0}
        seconds = exchange.wire_bytes / self.bytes_per_second
        if exchange.kind == "all-to-all":
            seconds *= max(farthest / 2, 1.0)
        seconds += hops.get(exchange.kind, farthest) * self.hop_seconds
        return exchange.times * seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nodes(Chip):
    """A GPU in a node of several with a switch; a network joins the nodes.

    Within a node data go round a ring, `n - 1` hops; between m nodes there are `log2 m`
    more over the network, by trees. An all-reduce does all that twice. Rings through
    many nodes use all their network cards at once; what all send to all goes through
    the card of each.

    References:
      "How to Scale Your Model" (2025), part 12: the bandwidths. NCCL,
      `src/graph/tuning.cc`: hops of rings and trees and the latency of each, in its
      low-latency protocol, without the 4.4 us to begin.

    Example:
      >>> exchange = Collective("all-reduce", 100_000, 256, 1.0)
      >>> round(CHIPS["H100"].exchange_seconds(exchange) * 1e6, 1)
      57.8
    """

    node_size: int
    """GPUs of a node."""

    bytes_per_second: float
    """What a GPU sends within its node."""

    card_bytes_per_second: float
    """What a GPU sends to other nodes."""

    hop_seconds: float
    """Within a node."""

    network_seconds: float
    """Between nodes."""

    def exchange_seconds(self, exchange: Collective) -> float:
        within = min(exchange.group_size, self.node_size)
        nodes = math.ceil(exchange.group_size / self.node_size)
        bandwidth = self.bytes_per_second
        if nodes > 1 and exchange.kind in ("all-to-all", "collective-permute"):
            bandwidth = self.card_bytes_per_second
        elif nodes > 1:
            together = self.node_size * self.card_bytes_per_second
            bandwidth = min(bandwidth, together)
        latency = (within - 1) * self.hop_seconds
        latency += math.log2(nodes) * self.network_seconds
        twice = 2 if exchange.kind == "all-reduce" else 1
        return exchange.times * (exchange.wire_bytes / bandwidth + twice * latency)


CHIPS: dict[str, Chip] = {
    # Peak and "bidirectional inter-chip interconnect bandwidth (per chip)", in and out,
    # of cloud.google.com/tpu/docs: v5e 400, v6e 800, v5p 1200 GB/s. The page of v4 has
    # the peak alone; "How to Scale Your Model", part 2, has 6 links of 45 GB/s.
    "v4": Torus(peak=275e12, axes=3, bytes_per_second=270e9),
    "v5e": Torus(peak=197e12, axes=2, bytes_per_second=200e9),
    "v5p": Torus(peak=459e12, axes=3, bytes_per_second=600e9),
    "v6e": Torus(peak=918e12, axes=2, bytes_per_second=400e9),
    # SXM, dense: 990 TFLOP/s, NVLink 4 with 450 GB/s each way, and a DGX H100 with a
    # card of 400 Gb/s a GPU ("How to Scale Your Model", part 12).
    "H100": Nodes(
        peak=990e12,
        node_size=8,
        bytes_per_second=450e9,
        card_bytes_per_second=50e9,
        hop_seconds=0.52e-6,
        network_seconds=5e-6,
    ),
}
"""By name: Google's TPU v4, v5e, v5p and v6e, and NVIDIA's H100 in nodes of eight."""
