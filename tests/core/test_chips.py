"""Seconds of exchanges, by hand."""

import pytest

from jaxmeta.core.chips import CHIPS
from jaxmeta.core.collectives import Collective

MEGA = 1_000_000
CASES = [
    # 16 x 16 chips: 16 hops at most. 2 * 255/256 MB at 200 GB/s, and 2 * 16 us.
    ("v5e", "all-reduce", 256, 2 * 255 / 256 * MEGA / 200e9 + 32e-6),
    # 4 x 4 x 4 chips: 6 hops.
    ("v5p", "all-gather", 64, 63 / 64 * MEGA / 600e9 + 6e-6),
    # What all send to all goes 3 hops on average.
    ("v4", "all-to-all", 64, 63 / 64 * MEGA * 3 / 270e9 + 6e-6),
    ("v6e", "collective-permute", 64, MEGA / 400e9 + 1e-6),
    # In a node: NVLink, 7 hops there and back.
    ("H100", "all-reduce", 8, 2 * 7 / 8 * MEGA / 450e9 + 14 * 0.52e-6),
    # 8 nodes: 8 cards of a node at once, and 3 more hops.
    ("H100", "all-gather", 64, 63 / 64 * MEGA / 400e9 + 7 * 0.52e-6 + 15e-6),
    ("H100", "all-to-all", 64, 63 / 64 * MEGA / 50e9 + 7 * 0.52e-6 + 15e-6),
]


@pytest.mark.parametrize(("chip", "kind", "devices", "seconds"), CASES)
def test_exchanges_by_hand(chip, kind, devices, seconds):
    found = CHIPS[chip].exchange_seconds(Collective(kind, MEGA, devices, 3.0))
    assert found == pytest.approx(3 * seconds)
