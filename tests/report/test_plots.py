import matplotlib.image
import numpy as np

from jaxmeta.report.plots import contours, learning_curves, matrices, table_curves

ROWS = [
    {"step": 10, "train/loss": 2.0, "train/skipped": 0.0},
    {
        "step": 20,
        "train/loss": 1.0,
        "train/skipped": 0.0,
        "validation/loss": 1.5,
        "validation/loss_low": 1.0,
        "validation/loss_high": 2.0,
    },
    {"step": 30, "train/skipped": 1.0},  # nothing was finite
]


def is_drawn(path):
    image = matplotlib.image.imread(path)
    return image.shape[0] > 100 and image[..., :3].std() > 0.01


def test_learning_curves(tmp_path):
    learning_curves(tmp_path / "curves.png", ROWS)
    assert is_drawn(tmp_path / "curves.png")


def test_nothing_is_drawn_where_nothing_was_trained(tmp_path):
    for rows in ([], [{"step": 1, "success": 1.0}]):
        learning_curves(tmp_path / "curves.png", rows)
        assert not (tmp_path / "curves.png").exists()


def test_one_panel_for_each_metric(tmp_path):
    both = [row | {"train/accuracy": 0.5} for row in ROWS]
    learning_curves(tmp_path / "one.png", ROWS)
    learning_curves(tmp_path / "two.png", both)
    one, two = (
        matplotlib.image.imread(tmp_path / name) for name in ("one.png", "two.png")
    )
    assert two.shape[1] == 2 * one.shape[1]


def test_matrices(tmp_path):
    rows = [
        {"ours": np.eye(4), "true": -np.eye(4)},
        {"k": np.ones((2, 3)), "l": np.eye(2)},
    ]
    matrices(tmp_path / "weights.png", rows)
    assert is_drawn(tmp_path / "weights.png")


def test_matrices_of_zeros(tmp_path):
    matrices(tmp_path / "weights.png", [{"ours": np.zeros((2, 3))}])
    assert is_drawn(tmp_path / "weights.png")


def test_table_curves_of_either_sign(tmp_path):
    rows = [
        {"row": "a", "column": "b", "seed": 0, "step": i, "train/x": 1.0 - i}
        for i in range(3)
    ]
    table_curves(tmp_path / "curves.png", rows, "x")
    assert is_drawn(tmp_path / "curves.png")


def test_no_curves_of_what_was_not_trained(tmp_path):
    rows = [{"row": "a", "column": "b", "seed": 0, "step": 1, "success": 1.0}]
    table_curves(tmp_path / "curves.png", rows, "success")
    assert not (tmp_path / "curves.png").exists()


def test_contours(tmp_path):
    x, y = np.linspace(-1, 1, 20), np.linspace(0, 3, 30)
    values = x**2 + y[:, None]
    path = np.array([[0.0, 3.0], [0.5, 1.0], [0.0, 0.0]])
    contours(
        tmp_path / "contours.png",
        (x, y),
        {"f": values, "-f": -values},
        {"there": path, "back": path[::-1]},
        labels=("x", "y"),
    )
    assert is_drawn(tmp_path / "contours.png")
