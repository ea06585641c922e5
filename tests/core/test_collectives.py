"""Exchanges read from a program: lines by hand, and small programs with known bytes."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxmeta.core.collectives import Collective, collectives
from jaxmeta.core.hlo import arrays, computations, executed, extra_flops
from jaxmeta.core.parallel import TASKS, make_mesh

HEADER = "HloModule m, num_partitions=8\n\nENTRY %main (x: f32[6]) -> f32[6] {\n"

# What is made, by what, among whom; bytes of the array, group, bytes sent by hand.
LINES = [
    ("f32[6]{0}", "all-reduce", "{{0,1,2,3},{4,5,6,7}}", 24, 4, 36.0),
    ("f32[6]{0}", "all-reduce", "{}", 24, 8, 42.0),
    (
        "(bf16[2,3]{1,0:T(8,128)}, pred[])",
        "all-reduce-start",
        "[4,2]<=[8]",
        13,
        2,
        13.0,
    ),
    ("f32[8,6]{1,0}", "all-gather", "mesh['a'=8] {'a'}", 192, 8, 168.0),
    ("f32[8,6]{1,0}", "all-gather", "mesh['a'=8] {'a':(2)4}", 192, 4, 144.0),
    ("(f32[6], f32[24])", "all-gather-start", "mesh['a'=2,'b'=4] {'b'}", 96, 4, 72.0),
    (
        "((f32[1], s8[4]), (f32[2], s8[8]))",
        "all-gather-start",
        "[4,2]<=[8]",
        16,
        2,
        8.0,
    ),
    ("s8[3]{0}", "reduce-scatter", "[2,4]<=[4,2]T(1,0)", 12, 4, 9.0),
    ("(f32[3]{0}, /*index=1*/f32[3]{0})", "all-to-all", "{{0,1},{2,3}}", 24, 2, 12.0),
]


@pytest.mark.parametrize(("made", "kind", "groups", "num_bytes", "size", "sent"), LINES)
def test_lines_by_hand(made, kind, groups, num_bytes, size, sent):
    line = f"%y = {made} {kind}(%x), channel_id=1, replica_groups={groups}, to_apply=%a"
    (found,) = collectives(f"{HEADER}  {line}\n}}\n")
    assert found == Collective(kind.removesuffix("-start"), num_bytes, size, 1.0)
    assert found.wire_bytes == sent


PERMUTATIONS = {
    "%y = f64[5]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}": (40, 2),
    "%y = (f32[5], f32[5], u32[], u32[]) collective-permute-start(%x), "
    "source_target_pairs={{0,1},{1,2},{2,0}}": (20, 3),
}


@pytest.mark.parametrize("line", PERMUTATIONS)
def test_permutations_by_hand(line):
    (found,) = collectives(f"{HEADER}  {line}\n}}\n")
    assert (found.num_bytes, found.group_size) == PERMUTATIONS[line]
    assert found.wire_bytes == found.num_bytes


@pytest.mark.parametrize(
    "line",
    [
        "%y = f32[6]{0} all-reduce(%x), replica_groups=[8,1]<=[8], to_apply=%a",
        "%y = f32[6]{0} all-reduce-done(%x)",
        '%y = f32[6]{0} add(%x, %x), metadata={op_name="all-reduce(x)"}',
    ],
)
def test_what_is_no_exchange(line):
    assert collectives(f"{HEADER}  {line}\n}}\n") == []


def test_alone_nothing_is_sent():
    assert Collective("all-reduce", 100, 1, 1.0).wire_bytes == 0


def _compiled(body, x):
    spec = P(TASKS)
    mapped = jax.shard_map(
        body, mesh=make_mesh(), in_specs=spec, out_specs=spec, check_vma=False
    )
    return jax.jit(mapped).lower(x).compile()


PROGRAMS = {
    # Four devices, rows of [3, 8] float32 on each: 96 bytes.
    "all-reduce": (lambda x: jax.lax.psum(x, TASKS), 96),
    "all-gather": (lambda x: jax.lax.all_gather(x, TASKS, tiled=True), 4 * 96),
    "all-to-all": (
        lambda x: jax.lax.all_to_all(x, TASKS, 1, 0, tiled=True),
        96,
    ),
    "reduce-scatter": (
        lambda x: jax.lax.psum_scatter(x, TASKS, scatter_dimension=1, tiled=True),
        96,
    ),
    "collective-permute": (
        lambda x: jax.lax.ppermute(x, TASKS, [(i, (i + 1) % 4) for i in range(4)]),
        96,
    ),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_real_programs(kind):
    body, num_bytes = PROGRAMS[kind]
    text = _compiled(body, jnp.ones((12, 8))).as_text()
    assert collectives(text) == [Collective(kind, num_bytes, 4, 1.0)]


def test_loops_count_as_often_as_they_go_round():
    def body(x):
        inner = lambda i, c: jax.lax.psum(c, TASKS) * 0.5
        outer = lambda i, c: jax.lax.fori_loop(0, 3, inner, c) + 1.0
        return jax.lax.fori_loop(0, 5, outer, x)

    (found,) = collectives(_compiled(body, jnp.ones(4)).as_text())
    assert found == Collective("all-reduce", 4, 4, 15.0)


def test_a_loop_of_unknown_length_is_refused():
    def body(x):
        go = lambda c: jax.lax.psum(c, TASKS).sum() < 100.0
        return jax.lax.while_loop(go, lambda c: c * 2.0, x)

    text = _compiled(body, jnp.ones(4)).as_text()
    with pytest.raises(ValueError, match="a loop of unknown length"):
        collectives(text)


def test_arithmetic_of_loops():
    """Against the same arithmetic without a loop."""

    def turn(x, length, unroll):
        step = lambda c, _: (jnp.tanh(c @ x) * 2.0 + x, None)
        return jax.lax.scan(step, x, length=length, unroll=unroll)[0]

    counted = []
    for unroll in (False, True):
        lowered = jax.jit(turn, static_argnums=(1, 2)).lower(
            jnp.ones((16, 16)), 6, unroll
        )
        compiled = lowered.compile()
        extra = extra_flops(compiled.as_text())
        assert (extra > 0) != unroll
        counted.append(compiled.cost_analysis()["flops"] + extra)
    # The counter of the loop, and what is fused otherwise.
    assert counted[0] == pytest.approx(counted[1], rel=0.01)


def test_reading():
    assert [
        a.num_bytes for a in arrays("(s4[3]{0}, f8e4m3fn[2], token[], c64[2])")
    ] == [
        2,
        2,
        0,
        16,
    ]
    assert computations("") == {}
    assert list(executed("")) == []
