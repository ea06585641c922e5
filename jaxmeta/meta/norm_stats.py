"""Whose statistics normalise the support and the query of a task.

  norm_stats   support set             query set
  query        its own                 its own: transductive, an answer depends on
                                       the other questions
  support      its own                 those of the support set: inductive
  running      in training its own,    in training its own, which are kept;
               else those kept         else those kept: inductive

Published results of MAML and its descendants are mostly of the first kind, which makes
them better than a classifier that meets one question at a time can be. All three see
the same network, whose layers are told with every call (`networks.norm`). Networks
without normalisation have no use for any of this.
"""

from typing import Literal, TypeAlias, get_args

import jax
from flax import linen as nn

from jaxmeta.core.types import Array, PyTree
from jaxmeta.networks.norm import OWN, STATS, STORED, TRAINING, Statistics

NormStats: TypeAlias = Literal["query", "support", "running"]


def check(norm_stats: str) -> None:
    """Raises ValueError for a choice that there is not."""
    if norm_stats not in get_args(NormStats):
        raise ValueError(
            f"norm_stats must be one of {get_args(NormStats)}, got {norm_stats!r}."
        )


def start(network: nn.Module, key, inputs: Array) -> tuple[dict[str, PyTree], PyTree]:
    """Initial variables of a network, and of them its statistics, `()` if it has none.

    Args:
      network: of one argument or, if it normalises, of inputs and `Statistics`.
      key: for the variables.
      inputs: `[n, ...]`.
    """
    variables = dict(network.init(key, inputs))
    return variables, variables.pop(STATS, ())


def forward(
    network: nn.Module,
    variables: PyTree,
    stats: PyTree,
    inputs: Array,
    statistics: Statistics,
) -> tuple[Array, PyTree]:
    """Outputs `[n, ...]`, and the statistics kept.

    Args:
      network: as in `start`.
      variables: without statistics.
      stats: stored statistics, `()` of a network that has none.
      inputs: `[n, ...]`.
      statistics: whose to use and which to keep.
    """
    if not stats:
        outputs = network.apply(variables, inputs)
        assert isinstance(outputs, jax.Array)  # not mutable, so no tuple
        return outputs, stats
    outputs, kept = network.apply(
        {**variables, STATS: stats}, inputs, statistics, mutable=[STATS]
    )
    return outputs, kept[STATS]


def of_support(norm_stats: NormStats, *, training: bool) -> Statistics:
    """What normalises the support set; kept as it is there."""
    return STORED if norm_stats == "running" and not training else OWN


def of_query(norm_stats: NormStats, *, training: bool) -> Statistics:
    """What normalises the query set, the support's statistics being stored if asked."""
    if norm_stats == "query":
        return OWN
    return TRAINING if norm_stats == "running" and training else STORED
