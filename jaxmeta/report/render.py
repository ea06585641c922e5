"""`jaxmeta report`: writes `report.md` and its pictures into run directories."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from jaxmeta.core.checkpoint import CheckpointError
from jaxmeta.core.run import Run, read_json
from jaxmeta.core.writers import read_jsonl
from jaxmeta.report.markdown import run_report, table_report
from jaxmeta.report.plots import learning_curves, table_curves
from jaxmeta.report.surgery import conflict_map, has_diagnostics, tragic_triad


def render(directory: Path, beside: Sequence[Path] = ()) -> str:
    """Renders a run of `train` or of `reproduce`.

    Args:
      directory: a run directory; `report.md` and `curves.png` are written into it, of
        a run with `--diagnostics` `triad.png` and `conflict.png`, and of an agent that
        has been trained `episode.gif`.
      beside: runs whose diagnostics are drawn into the same panels.

    Returns:
      The Markdown.

    Raises:
      ValueError: if there is nothing to report, naming what is missing.
    """
    if not (directory / "card.json").is_file():
        raise ValueError(
            f"{directory} has no card.json: it is no run directory, or its run has not "
            "ended yet."
        )
    card = read_json(directory / "card.json")
    rows = read_jsonl(directory / "metrics.jsonl")
    if (directory / "table.json").is_file():
        table_curves(directory / "curves.png", rows, card["metric"])
        text = table_report(read_json(directory / "table.json"), card)
    else:
        learning_curves(directory / "curves.png", rows)
        figures = ["curves.png"] if (directory / "curves.png").is_file() else []
        if has_diagnostics(rows):
            figures += ["triad.png", "conflict.png"]
            runs = {run.name: read_jsonl(run / "metrics.jsonl") for run in beside}
            runs = {
                name: found for name, found in runs.items() if has_diagnostics(found)
            }
            tragic_triad(directory / "triad.png", {directory.name: rows, **runs})
            conflict_map(directory / "conflict.png", rows)
        finished = (directory / "result.json").is_file()
        result = read_json(directory / "result.json") if finished else {}
        if finished and "agent" in card["config"]:
            figures += _film(directory)
        text = run_report(card, result, figures)
    (directory / "report.md").write_text(text, encoding="utf-8")
    return text


def _film(directory: Path) -> list[str]:
    """The GIF of an agent, or none without a checkpoint or anything to draw with."""
    # Both load the simulator.
    from jaxmeta.manipulation.render import NoOpenGLError
    from jaxmeta.rl.film import film

    try:
        film(Run.load(directory).experiment, directory, directory / "episode.gif")
    except (CheckpointError, NoOpenGLError) as error:
        warnings.warn(f"episode.gif is left out: {error}", stacklevel=2)
        return []
    return ["episode.gif"]
