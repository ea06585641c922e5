"""Reading the text of a compiled program: every instruction, and how often it runs.

XLA's own cost analysis counts the body of a loop once, however often it goes round;
here a loop counts as often as the compiler knows that it does.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(body|condition|calls|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch|called)_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_APPLIED = (
    "all-reduce",
    "reduce",
    "reduce-scatter",
    "reduce-window",
    "scatter",
    "sort",
)
"""What calls a computation on numbers, which is counted with the caller."""

_ELEMENTWISE = re.compile(
    "add|subtract|multiply|divide|maximum|minimum|compare|select|negate|abs|sign|power|"
    "sqrt|rsqrt|and|or|not|xor|clamp|remainder|floor|ceil|shift-.*"
)


class Array(NamedTuple):
    """An array that a program makes.

    Attributes:
      dtype: in XLA's words, `f32` or `pred`.
      shape: of one device.

    Example:
      >>> Array("bf16", (3, 2)).num_bytes
      12
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """What it weighs; a token weighs nothing, half a byte is rounded up."""
        bits = re.search(r"\d+", self.dtype)
        width = 8 if self.dtype == "pred" else int(bits.group()) if bits else 0
        return -(-self.size * width // 8)


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      name: without its `%`.
      kind: `dot`, `all-reduce-start` and so on.
      results: the arrays it makes; of a tuple all, in order.
      operands: names of what it takes.
      text: all that stands behind the opening parenthesis.
    """

    name: str
    kind: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type, a tuple's in their order.

    Example:
      >>> [array.shape for array in arrays("(f32[2,3]{1,0}, s32[])")]
      [(2, 3), ()]
    """
    return tuple(
        Array(dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(text)
    )


def computations(text: str) -> dict[str, list[Instruction]]:
    """The parts of a program by name; the entry is the last.

    Args:
      text: `jax.stages.Compiled.as_text()`.

    Example:
      >>> program = '''
      ... ENTRY %main (x: f32[2]) -> f32[2] {
      ...   %x = f32[2]{0} parameter(0)
      ...   ROOT %y = f32[2]{0} add(%x, %x)
      ... }
      ... '''
      >>> computations(program)["main"][1].operands
      ('x', 'x')
    """
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in map(str.strip, text.splitlines()):
        if header := _HEADER.match(line):
            current = found.setdefault(header.group(1), [])
            entry = header.group(1) if line.startswith("ENTRY") else entry
        elif current is not None and (parts := _LINE.match(line)):
            name, made, kind, rest = parts.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.split(")", 1)[0])
            current.append(Instruction(name, kind, arrays(made), (*operands,), rest))
    if entry:
        found[entry] = found.pop(entry)
    return found


def executed(text: str) -> Iterator[tuple[Instruction, float]]:
    """Every instruction and how often it runs in one run of the program.

    That is the product of the rounds of the loops around it; nan where the compiler
    knows no number. Of the branches of a conditional each counts as taken.

    Args:
      text: `jax.stages.Compiled.as_text()`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> turn = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=7)[0]
      >>> program = jax.jit(turn).lower(jnp.ones((8, 8))).compile().as_text()
      >>> {times for line, times in executed(program) if line.kind == "dot"}
      {7.0}
    """
    parts = computations(text)
    times: dict[str, float] = defaultdict(float)
    if parts:
        times[next(reversed(parts))] = 1.0
    for name in reversed(_callees_first(parts)):
        for line in parts[name]:
            for called, rounds in _calls(line):
                times[called] += times[name] * rounds
    for name, lines in parts.items():
        yield from ((line, times[name]) for line in lines)


def extra_flops(text: str) -> float:
    """Arithmetic that `cost_analysis()` leaves out: all rounds of a loop but the first.

    Two operations for every product of a matrix multiplication, one for every element
    of what is done element by element, exponentials and the like excepted, as XLA's
    analysis has it. A loop of unknown length goes round once, and convolutions in loops
    are left out.

    Args:
      text: `jax.stages.Compiled.as_text()`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> turn = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=7)[0]
      >>> program = jax.jit(turn).lower(jnp.ones((8, 8))).compile().as_text()
      >>> extra_flops(program) == 6 * (2 * 8**3 + 2)     # and its counter, compared
      True
    """
    made = {
        line.name: line.results for part in computations(text).values() for line in part
    }
    return math.fsum(
        (times - 1) * _flops(line, made)
        for line, times in executed(text)
        if times > 1  # not of nan
    )


def _flops(line: Instruction, made: dict[str, tuple[Array, ...]]) -> int:
    if _ELEMENTWISE.fullmatch(line.kind):
        return line.results[0].size
    if line.kind in ("reduce", "dot"):
        (taken, *_) = made[line.operands[0]]
        if line.kind == "reduce":
            return taken.size
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.text)
        inner = re.findall(r"\d+", axes.group(1)) if axes else ()
        return 2 * line.results[0].size * math.prod(taken.shape[int(i)] for i in inner)
    return 0


def _calls(line: Instruction) -> list[tuple[str, float]]:
    """What an instruction runs, and how often in one run of its own."""
    rounds = 1.0
    if line.kind == "while":
        known = _TRIPS.search(line.text)
        rounds = float(known.group(1)) if known else math.nan
    called = [
        (name, rounds)
        for role, name in _CALLED.findall(line.text)
        if not (role == "to_apply" and line.kind.removesuffix("-start") in _APPLIED)
    ]
    for names in _BRANCHES.findall(line.text):
        called += [(name.strip(" %"), 1.0) for name in names.split(",")]
    return called


def _callees_first(parts: dict[str, list[Instruction]]) -> list[str]:
    """Names of the computations, each after all that it calls."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in done and name in parts:
            for line in parts[name]:
                for called, _ in _calls(line):
                    visit(called)
            done[name] = None

    for name in parts:
        visit(name)
    return list(done)
