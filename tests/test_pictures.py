"""The drawings of the documentation are not cut at an edge."""

from pathlib import Path

import pytest
from matplotlib.image import imread

DOCS = Path(__file__).resolve().parents[1] / "docs"
MARGIN = 8
"""Pixels along every edge that show nothing."""


@pytest.mark.parametrize("name", sorted(path.stem.removeprefix("draw_") for path in DOCS.glob("draw_*.py")))
def test_nothing_is_drawn_at_the_edge(name):
    picture = imread(DOCS / f"{name}.png")[..., :3]
    edges = (picture[:MARGIN], picture[-MARGIN:], picture[:, :MARGIN], picture[:, -MARGIN:])
    assert all((edge == 1).all() for edge in edges)
