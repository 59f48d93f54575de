"""Augmentation: each change by its closed form, padding, seeds; random layouts."""

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.augmentation import Augmentation, random_layout
from seq2seq.swipe.traces.synthetic import synthetic_points
from seq2seq.swipe.traces.trace import padded
from third_party.models.swipe.path import ABSENT

CYRILLIC = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points, mask = padded([rng.uniform(0, 9, (count, 2)).astype(np.float32) for count in (20, 7, 2, 1)])
    boxes = rng.uniform(0.5, 9, (4, 5, 4)).astype(np.float32)
    return points, mask, boxes


def augmented(batch, seed=0, **settings):
    return Augmentation(**settings)(*batch, np.random.default_rng(seed))


def test_nothing_is_changed_by_zeros(batch):
    points, boxes = augmented(batch)
    np.testing.assert_allclose(points, batch[0], atol=1e-5)
    np.testing.assert_array_equal(boxes, batch[2])
    assert points.dtype == boxes.dtype == np.float32


@pytest.mark.parametrize("name", ["noise", "shift", "rotation", "scale", "warp", "keys", "stretch"])
def test_each_setting_changes_something_keeps_padding_and_follows_the_seed(batch, name):
    points, boxes = augmented(batch, **{name: 0.2})
    changed = boxes if name == "keys" else points
    assert np.abs(changed - (batch[2] if name == "keys" else batch[0])).max() > 0.01
    assert not points[batch[1] == 0].any()
    again, boxes_again = augmented(batch, **{name: 0.2})
    np.testing.assert_array_equal(points, again)
    np.testing.assert_array_equal(boxes, boxes_again)
    other, other_boxes = augmented(batch, seed=1, **{name: 0.2})
    assert (other_boxes != boxes).any() if name == "keys" else (other != points).any()


def pairwise(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_rotation_keeps_distances_and_scale_multiplies_them(batch):
    turned, _ = augmented(batch, rotation=0.5)
    scaled, _ = augmented(batch, scale=0.5)
    for row, count in enumerate(batch[1].sum(1)[:2]):
        before = pairwise(batch[0][row, :count])
        np.testing.assert_allclose(pairwise(turned[row, :count]), before, atol=1e-4)
        ratio = pairwise(scaled[row, :count])[0, 1:] / before[0, 1:]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
        np.testing.assert_allclose(scaled[row, :count].mean(0), batch[0][row, :count].mean(0), atol=1e-4)


@pytest.mark.parametrize("warp", [0.1, 5.0])
def test_a_warp_moves_points_forward_along_the_same_path(warp):
    line = np.linspace(0, 8, 30, dtype=np.float32)
    points = np.stack([line, 2 * line], 1)[None].repeat(50, 0)
    warped, _ = Augmentation(warp=warp)(
        points, np.ones((50, 30), np.int64), np.ones((50, 1, 4)), np.random.default_rng(0)
    )
    np.testing.assert_allclose(warped[..., 1], 2 * warped[..., 0], atol=1e-5)  # on the path
    assert (np.diff(warped[..., 0], axis=1) > 0).all()  # never back
    np.testing.assert_allclose(warped[:, [0, -1]], points[:, [0, -1]], atol=1e-5)
    assert np.abs(warped - points).max() > 0.05


def test_stretching_keeps_places_relative_to_the_keys(batch):
    points, boxes = augmented(batch, stretch=0.3)
    for row in range(4):
        factor = boxes[row, 0, :2] / batch[2][row, 0, :2]
        np.testing.assert_allclose(boxes[row], batch[2][row] * np.tile(factor, 2), rtol=1e-5)
        np.testing.assert_allclose(points[row], batch[0][row] * factor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("alphabet", "rows"), [("abcdefghijklmnopqrstuvwxyz", 3), (CYRILLIC, 3), ("abc", 3), ("abcd", 1)]
)
def test_random_layouts_have_each_letter_once_and_no_overlap(alphabet, rows):
    places = set()
    for seed in range(20):
        layout = random_layout(np.random.default_rng(seed), alphabet, rows)
        assert layout.alphabet == "".join(sorted(alphabet))
        x, y, width, height = layout.boxes.T
        apart = (np.abs(x[:, None] - x) > width - 1e-4) | (np.abs(y[:, None] - y) > height - 1e-4)
        assert (apart | np.eye(len(x), dtype=bool)).all()
        assert len(set(y.tolist())) == rows
        places.add(layout.boxes.tobytes())
        (trace,) = synthetic_points([alphabet[:3]], layout, 30, seed)
        assert np.isfinite(trace).all()
    assert len(places) == 20


def test_random_layouts_refuse_more_rows_than_letters():
    with pytest.raises(ConfigurationError, match="Key 'rows' of a random layout must be between 1 and the 2 letters"):
        random_layout(np.random.default_rng(0), "ab", 3)


def test_absent_letters_stay_where_models_look_for_them():
    """A stretched keyboard does not bring them near: the position is relative to the present ones."""
    points, mask = np.zeros((200, 4, 2), np.float32), np.ones((200, 4), np.int64)
    boxes = np.tile(np.float32([[1, 1, 1, 1], [ABSENT, ABSENT, 1, 1]]), (200, 1, 1))
    _, moved = Augmentation(stretch=1.0, keys=0.5)(points, mask, boxes, np.random.default_rng(0))
    np.testing.assert_array_equal(moved[:, 1], boxes[:, 1])
    assert not np.allclose(moved[:, 0], boxes[:, 0])
