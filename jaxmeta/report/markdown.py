"""Tables and runs as Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

COLUMNS = (
    "method",
    "problem",
    "published",
    "ours",
    "95 % over tasks",
    "95 % over seeds",
    "floor",
    "protocol",
    "s",
    "verdict",
)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with `digits` significant digits; a dash for none.

    Example:
      >>> number(0.0050917), number(3.09), number(None)
      ('.00509', '3.09', '–')
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _with_error(value: float, standard_error: float | None) -> str:
    text = number(value)
    return text if standard_error is None else f"{text} ± {number(standard_error, 1)}"


def interval_text(low: float | None, high: float | None) -> str:
    """`[low, high]`; a dash where there is none."""
    return "–" if low is None else f"[{number(low)}, {number(high)}]"


def cells(record: Record) -> list[str]:
    """One record of `table.json` as the texts of one line of the table."""
    verdict = record["verdict"]
    return [
        record["row"],
        record["column"],
        record["published"] or "–",
        _with_error(record["value"], record["standard_error"]),
        interval_text(record["low"], record["high"]),
        interval_text(record["seed_low"], record["seed_high"]),
        number(record["floor"]),
        record["protocol"],
        f"{record['seconds']:.0f}",
        f"{verdict} ({record['claim']})" if verdict else "–",
    ]


def norm_text(norm_stats: str) -> str:
    """Whose batch statistics a method uses, for tables.

    Example:
      >>> norm_text("query"), norm_text("running")
      ('norm_stats query (transductive)', 'norm_stats running')
    """
    return f"norm_stats {norm_stats}" + " (transductive)" * (norm_stats == "query")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Example:
      >>> print(markdown_table(["a", "b"], [["1", "2"]]))
      | a | b |
      |---|---|
      | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    joined = ["| " + " | ".join(line) + " |" for line in lines]
    joined[1] = "|" + "|".join("---" for _ in header) + "|"
    return "\n".join(joined)


def table_report(records: Sequence[Record], card: Record) -> str:
    """`report.md` of a reproduced table."""
    hardware, versions = card["hardware"], card["versions"]
    seeds = len(card["seeds"])
    tasks = sorted({record["tasks_per_seed"] for record in records})
    breakdown = card["breakdown"]
    lines = [
        f"# {card['title']}",
        "",
        markdown_table(COLUMNS, [cells(record) for record in records]),
        "",
        f"Published figures: {card['source']}. Ours: mean over {seeds} "
        f"seed{'s' * (seeds > 1)}, each on {' or '.join(f'{n:,}' for n in tasks)} "
        f"{card['measured_on']}. The interval over tasks says how much these differ, "
        "the interval over seeds how much training runs do; "
        "± is the standard error over seeds.",
        *(text for note in card["notes"] for text in ("", note)),
        *(("", markdown_table(breakdown[0], breakdown[1:])) if breakdown else ()),
        *(text for name in card["figures"] for text in ("", f"![{name}]({name})")),
        "",
        f"`{card['command']}`, revision {', '.join(card['git_revisions'])}, "
        f"{card['run_wall_seconds']:.0f} s of runs, {hardware['devices']} x "
        f"{hardware['device']} ({hardware['cpus']} cores), jax {versions['jax']}, "
        f"Python {versions['python']}.",
        "",
    ]
    return "\n".join(lines)


def run_report(card: Record, result: Mapping[str, Record], figures: list[str]) -> str:
    """`report.md` of one run, of training or of measuring."""
    config = card["config"]
    of = "episodes" if "agent" in config else "tasks"
    header = ["test metric", "mean", f"95 % over {of}", "smallest", "largest", of]
    rows = [
        [
            name,
            number(value["mean"], 4),
            interval_text(value["low"], value["high"]),
            number(value["smallest"]),
            number(value["largest"]),
            str(value["count"]),
        ]
        for name, value in result.items()
    ]
    lines = [
        f"# Run {card['config_hash']}",
        "",
        markdown_table(header, rows),
        "",
        f"{_work_text(card)}, seed {card['seed']}, {card['wall_seconds']:.0f} s, "
        f"revision {card['git_revision'] or 'unknown'}.",
        *(text for name in figures for text in ("", f"![{name}]({name})")),
        "",
    ]
    return "\n".join(lines)


def _work_text(card: Record) -> str:
    """What was trained, or the name of what was measured."""
    config = card["config"]
    if "agent" in config:
        return (
            f"{_class(config['agent'])} on {_text(config['suite'])} in "
            f"{config['steps']:,} steps of {_text(config['physics'])}"
        )
    if "learner" in config:
        norm_stats = card.get("norm_stats")
        norm = f", {norm_text(norm_stats)}" if norm_stats else ""
        return (
            f"{_class(config['learner'])} on {_text(config['source'])}{norm}, "
            f"{config['steps']} steps of {config['tasks_per_step']} tasks"
        )
    return _class(config)


def _text(config: Record) -> str:
    """A class and its fields."""
    fields = ", ".join(f"{k} {v}" for k, v in config.items() if k != "class")
    return f"{_class(config)} ({fields})"


def _class(config: Record) -> str:
    return config["class"].split(":")[1]
