"""Pictures of groups: what is drawn is what was given."""

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxmeta.report.shift import (
    corruption_map,
    running_mean,
    sorted_groups,
    streaming_curve,
    support_curve,
)

THREE = {row: np.array([0.5, 0.25, 0.75]) + i / 8 for i, row in enumerate("abc")}
DRAWN = {
    "groups": (sorted_groups, {row: [values] for row, values in THREE.items()}),
    "support": (support_curve, {"a": ((1, 5), np.array([[0.1, 0.3], [0.5, 0.9]]))}),
    "streaming": (streaming_curve, {("a", "mixed"): np.linspace(0.0, 1.0, 30)}),
    "corruptions": (
        lambda path, rows: corruption_map(path, ["fog 1", "fog 3", "snow 3"], rows),
        THREE,
    ),
}


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """`shown(draw, *arguments)`: the figure that was drawn, to be looked into."""

    def draw_and_keep(draw, *arguments):
        kept = []
        monkeypatch.setattr(plt, "close", kept.append)
        draw(tmp_path / "shown.png", *arguments)
        monkeypatch.undo()
        plt.close(kept[0])
        return kept[0]

    yield draw_and_keep
    plt.close("all")


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_written_and_closed(name, tmp_path):
    draw, rows = DRAWN[name]
    draw(tmp_path / "x.png", rows)
    pixels = matplotlib.image.imread(tmp_path / "x.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels[..., :3].std() > 0.01
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_drawn_of_nothing(name, tmp_path):
    DRAWN[name][0](tmp_path / "x.png", {})
    assert not (tmp_path / "x.png").exists()


def test_groups_are_sorted_by_seed_and_then_averaged(shown):
    seeds = [np.array([0.5, 0.25, 1.0]), np.array([0.25, 0.75, 0.5])]
    figure = shown(sorted_groups, {"ERM": seeds, "ARM-BN": [np.array([0.5, 0.0, 1.0])]})
    first, second = figure.axes[0].lines
    assert first.get_xdata().tolist() == [1, 2, 3]
    assert first.get_ydata().tolist() == [0.25, 0.5, 0.875]
    assert second.get_ydata().tolist() == [0.0, 0.5, 1.0]
    assert legend_of(figure) == ["ERM", "ARM-BN"]


def test_many_methods_have_colours_of_their_own(shown):
    rows = {f"method {i}": [np.array([0.1, 0.2])] for i in range(14)}
    lines = shown(sorted_groups, rows).axes[0].lines
    assert len({line.get_color() for line in lines}) == 14


def test_support_has_the_mean_and_the_worst_group(shown):
    counts = (1, 10, 100)
    accuracies = np.array([[0.25, 0.75], [0.5, 0.75], [1.0, 0.5]])
    figure = shown(support_curve, {"ERM": (counts, accuracies)})
    (axis,) = figure.axes
    mean, worst = axis.lines
    assert tuple(mean.get_xdata()) == counts
    assert mean.get_ydata().tolist() == [0.5, 0.625, 0.75]
    assert worst.get_ydata().tolist() == [0.25, 0.5, 0.5]
    assert (mean.get_linestyle(), worst.get_linestyle()) == ("-", "--")
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "10", "100"]
    assert legend_of(figure) == ["ERM", "mean over groups", "worst group"]


def test_streams_have_a_panel_a_mode_and_one_colour_a_method(shown):
    ramp = np.linspace(0.0, 1.0, 30)
    rows = {
        ("ERM", "episodic"): ramp,
        ("ARM-BN", "episodic"): ramp / 2,
        ("ARM-BN", "mixed"): ramp / 4,
    }
    figure = shown(streaming_curve, rows)
    episodic, mixed = figure.axes
    assert (episodic.get_title(), mixed.get_title()) == ("episodic", "mixed")
    erm, arm = episodic.lines
    (again,) = mixed.lines
    assert erm.get_xdata().tolist() == list(range(1, 31))
    # A window of three leaves the inside of a straight line as it is.
    np.testing.assert_allclose(erm.get_ydata()[1:-1], ramp[1:-1], rtol=1e-12)
    np.testing.assert_allclose(again.get_ydata()[1:-1], ramp[1:-1] / 4, rtol=1e-12)
    assert arm.get_color() == again.get_color() != erm.get_color()
    assert legend_of(figure) == ["ERM", "ARM-BN"]


def test_a_short_stream_is_not_smoothed(shown):
    values = np.array([0.0, 1.0, 0.0, 1.0])
    (line,) = shown(streaming_curve, {("a", "mixed"): values}).axes[0].lines
    assert line.get_ydata().tolist() == values.tolist()


def test_running_mean_is_of_what_is_there():
    values = np.array([4.0, 0.0, 2.0, 6.0])
    assert running_mean(values, 1).tolist() == values.tolist()
    assert running_mean(values, 3).tolist() == [2.0, 2.0, 8 / 3, 4.0]
    assert running_mean(values, 2).tolist() == running_mean(values, 3).tolist()
    assert running_mean(values, 99).tolist() == [3.0] * 4


def test_corruptions_are_in_their_cells_on_one_scale(shown):
    names = ["motion_blur 2", "fog 5", "fog 2"]
    rows = {"ERM": np.array([0.1, 0.2, 0.3]), "ARM-BN": np.array([0.9, 0.8, 0.7])}
    figure = shown(corruption_map, names, rows)
    left, right, bar = figure.axes
    (image,), (other,) = left.images, right.images
    np.testing.assert_array_equal(image.get_array().filled(-1), [[0.1, -1], [0.3, 0.2]])
    np.testing.assert_array_equal(other.get_array().filled(-1), [[0.9, -1], [0.7, 0.8]])
    assert image.get_clim() == other.get_clim() == (0.1, 0.9)
    assert {text.get_position(): text.get_text() for text in left.texts} == {
        (0, 0): "10",
        (1, 1): "20",
        (0, 1): "30",
    }
    ticks = lambda labels: [label.get_text() for label in labels]
    assert ticks(left.get_yticklabels()) == ["motion blur", "fog"]
    assert ticks(right.get_xticklabels()) == ["2", "5"]
    assert (left.get_title(), right.get_title()) == ("ERM", "ARM-BN")
    assert bar.get_ylabel() == "test accuracy"


def test_maps_below_one_another_name_severities_once(shown):
    rows = {f"method {i}": np.array([0.5, i / 10]) for i in range(6)}
    maps = shown(corruption_map, ["fog 1", "fog 2"], rows).axes[:6]
    named = [axis.get_xlabel() == "severity" for axis in maps]
    assert named == [False, False, True, True, True, True]


def test_numbers_are_white_on_dark_and_black_on_light(shown):
    names, rows = ["fog 1", "fog 2"], {"a": np.array([0.0, 1.0])}
    dark, light = shown(corruption_map, names, rows).axes[0].texts
    assert (dark.get_color(), light.get_color()) == ("white", "black")


def test_a_name_without_a_severity_is_refused(tmp_path):
    with pytest.raises(ValueError, match="invalid literal"):
        corruption_map(tmp_path / "x.png", ["fog five"], {"a": np.array([0.5])})
