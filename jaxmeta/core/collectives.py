"""What devices say to each other in one run of a program, from its compiled text."""

import math
import re
from typing import NamedTuple

from jaxmeta.core.hlo import Array, Instruction, executed

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
"""What is looked for, as a whole or as the `-start` of what ends later."""

_PARTITIONS = re.compile(r"\b(?:num_partitions|replica_count)=(\d+)")


class Collective(NamedTuple):
    """An exchange between devices.

    Attributes:
      kind: one of `KINDS`.
      num_bytes: of the array of one device: the result of an all-gather, the input of
        all else.
      group_size: how many devices talk to each other, >= 1.
      times: how often a run of the program does it.

    Example:
      >>> Collective("all-reduce", 1000, 4, 1.0).wire_bytes
      1500.0
    """

    kind: str
    num_bytes: int
    group_size: int
    times: float

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends each time, by the usual algorithms on a ring.

        Of B bytes among n devices: all-reduce `2 (n-1)/n B`, all-gather,
        reduce-scatter and all-to-all `(n-1)/n B`, a permutation `B`.

        References:
          Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication
          Operations in MPICH" (2005), section 4.
        """
        n = self.group_size
        if n == 1:
            return 0.0
        if self.kind == "collective-permute":
            return float(self.num_bytes)
        share = (n - 1) / n * self.num_bytes
        return 2 * share if self.kind == "all-reduce" else share


def collectives(text: str) -> list[Collective]:
    """Every exchange between two devices or more.

    Args:
      text: of a program for all devices alike, `jax.stages.Compiled.as_text()`.

    Raises:
      ValueError: for an exchange in a loop of which the compiler does not know how
        often it goes round.

    Example:
      >>> program = '''
      ... HloModule m, num_partitions=4
      ... ENTRY %main (x: f32[6]) -> f32[6] {
      ...   %x = f32[6]{0} parameter(0)
      ...   ROOT %y = f32[6]{0} all-reduce(%x), replica_groups=[2,2]<=[4], to_apply=%add
      ... }
      ... '''
      >>> collectives(program)
      [Collective(kind='all-reduce', num_bytes=24, group_size=2, times=1.0)]
    """
    devices = math.prod(int(n) for n in _PARTITIONS.findall(text))
    found = []
    for line, times in executed(text):
        kind = line.kind.removesuffix("-start")
        if kind not in KINDS or (size := _group_size(line.text, devices)) == 1:
            continue
        if math.isnan(times):
            raise ValueError(
                f"{line.name} is in a loop of unknown length: nobody can say how much "
                "the program communicates; use jax.lax.scan or fori_loop with fixed "
                "bounds."
            )
        found.append(Collective(kind, _num_bytes(line, kind, size), size, times))
    return found


def _num_bytes(line: Instruction, kind: str, group_size: int) -> int:
    results = line.results
    if line.kind in ("all-gather-start", "collective-permute-start"):
        # Operands, then results, then perhaps two numbers for the hardware.
        arrays = [array for array in results if array != Array("u32", ())]
        results = arrays[len(arrays) // 2 :]
    total = sum(array.num_bytes for array in results)
    return total * group_size if kind == "reduce-scatter" else total


def _group_size(text: str, devices: int) -> int:
    """How many talk to each other; the groups of one program are all of one size."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
        return len(set(re.findall(r"\d+", pairs.group(1))))
    if mesh := re.search(r"replica_groups=@?\w*mesh\[(.*?)\].*?\{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh.group(2))
        return math.prod(int(part or sizes[name]) for name, part in axes)
    if table := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text):
        return int(table.group(2))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(listed.group(1).split(","))
    return devices
