"""Features against loops in numpy, by what must not change them, and without padding."""

import numpy as np
import pytest
import torch

from tests.third_party.models.swipe.batches import ALPHABET, LENGTHS, batch, row
from third_party.models.swipe import FEATURES
from third_party.models.swipe.keys import InsideKey, KeyDistances, KeyGaussians, KeyWeights, NearestKey
from third_party.models.swipe.path import UNIT, Events, Motion, Position, Time, derivative

RATE = 25.0
LETTERS = len(ALPHABET)
OF_LETTERS = (NearestKey, InsideKey, KeyWeights, KeyGaussians, KeyDistances)


def features(name, inputs, letters=LETTERS):
    return FEATURES[name](letters, RATE)(inputs["points"], inputs["attention_mask"], inputs["boxes"])


def of_letters(kind, inputs):
    return kind(inputs["boxes"].shape[1])(inputs["points"], inputs["attention_mask"], inputs["boxes"])


def by_loops(formula, inputs):
    """A formula of dx, dy, width and height, point by point and key by key."""
    points, boxes = inputs["points"].numpy(), inputs["boxes"].numpy()
    found = [
        [[formula(x - cx, y - cy, w, h) for cx, cy, w, h in keys] for x, y in trace]
        for trace, keys in zip(points, boxes, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


def radii(dx, dy, w, h):
    """The distance in half diagonals."""
    return float(np.hypot(dx, dy) / (np.hypot(w, h) / 2))


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        (InsideKey, lambda dx, dy, w, h: float(abs(dx) <= w / 2 and abs(dy) <= h / 2)),
        (KeyWeights, lambda *key: 1 / (1 + np.exp(1.8 * radii(*key) - 3.96))),
        (KeyGaussians, lambda *key: np.exp(-(radii(*key) ** 2) / 2)),
        (KeyDistances, lambda *key: max(0.0, 1 - radii(*key) / 10)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_features_of_letters_by_loops(kind, formula):
    inputs = batch(torch.float64)
    torch.testing.assert_close(of_letters(kind, inputs), by_loops(formula, inputs))


def test_the_nearest_key_by_loops():
    inputs = batch(torch.float64)
    nearest = by_loops(radii, inputs).argmin(-1)
    found = of_letters(NearestKey, inputs)
    assert torch.equal(found.argmax(-1), nearest)
    assert torch.equal(found.sum(-1), torch.ones_like(found[..., 0]))


def test_widths_of_gaussians_are_per_letter_and_axis():
    inputs, kind = batch(torch.float64), KeyGaussians(LETTERS)
    inputs["points"] = inputs["boxes"][:, 2:3, :2] + torch.tensor([0.3, 0.0])  # right of the third letter
    with torch.no_grad():
        kind.log_widths[2, 0], kind.log_widths[2, 1] = np.log(0.5), np.log(7.0)
    found = kind(inputs["points"], inputs["attention_mask"][:, :1], inputs["boxes"])[0, 0, 2]
    assert found.item() == pytest.approx(np.exp(-((0.3 / np.sqrt(0.5) / 0.5) ** 2) / 2))
    found.backward()
    assert kind.log_widths.grad[2, 0] > 0
    assert kind.log_widths.grad[[0, 1, 3, 4, 5, 6]].abs().max() == 0


@pytest.mark.parametrize("rate", [10.0, 60.0])
def test_derivatives_are_those_of_numpy(rate):
    inputs = batch(torch.float64)
    found = derivative(inputs["points"], torch.tensor(LENGTHS), rate)
    for index, length in enumerate(LENGTHS):
        trace = inputs["points"][index, :length].numpy()
        expected = np.gradient(trace, 1 / rate, axis=0) * UNIT if length > 1 else np.zeros((1, 2))
        np.testing.assert_allclose(found[index, :length], expected, atol=1e-12)


def test_motion_of_a_constant_acceleration():
    """x = 3 t^2 / 2: x'' = 3 key widths per second^2, inside; the unit of time is 0.1 s."""
    time = torch.arange(12, dtype=torch.float64) / RATE
    points = torch.stack([1.5 * time**2, -2 * time], -1)[None]
    found = Motion(RATE, order=2)(points, torch.ones(1, 12, dtype=torch.int64), None)[0]
    torch.testing.assert_close(found[1:-1, 0], 3 * time[1:-1] * UNIT)
    torch.testing.assert_close(found[:, 1], torch.full_like(time, -2 * UNIT))
    torch.testing.assert_close(found[2:-2, 2], torch.full_like(time[2:-2], 3 * UNIT**2))


def test_position_time_and_events():
    inputs = batch(torch.float64)
    points, mask, keys = inputs["points"], inputs["attention_mask"], inputs["boxes"]
    x, y = points[0, 3]
    expected = torch.stack([x / 2 - 1, y / 1.5 - 1])  # the letters' keys are on [0, 4] x [0, 3]
    torch.testing.assert_close(Position()(points, mask, keys)[0, 3], expected)
    torch.testing.assert_close(Time(RATE)(points, mask, keys)[1, :, 0], torch.arange(9, dtype=torch.float64) / RATE)
    down, move, up = Events()(points, mask, keys).unbind(-1)
    for index, length in enumerate(LENGTHS):
        frames = [*range(length)]
        assert [k for k in frames if down[index, k]] == [0]
        assert [k for k in frames if up[index, k]] == [length - 1]
        assert [k for k in frames if move[index, k]] == frames[1:-1]


def test_contrast_is_normalized_in_each_frame():
    found = features("google2015", batch(torch.float64))[0, : LENGTHS[0]]
    torch.testing.assert_close(found.mean(-1), torch.zeros(LENGTHS[0], dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.std(-1, correction=0), torch.ones(LENGTHS[0], dtype=torch.float64))


@pytest.mark.parametrize("name", FEATURES)
def test_padding_changes_nothing_and_is_zero(name):
    inputs = batch(torch.float64)
    found = features(name, inputs)
    assert found.shape == (3, 9, FEATURES[name](LETTERS, RATE).size)
    for index, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[index : index + 1, :length], features(name, row(inputs, index)))
        assert found[index, length:].abs().sum() == 0


@pytest.mark.parametrize("name", FEATURES)
def test_a_trace_that_moves_with_its_keyboard_has_the_same_features(name):
    inputs, moved = batch(torch.float64), batch(torch.float64)
    shift = torch.tensor([2.5, -1.25], dtype=torch.float64)
    moved["points"] = moved["points"] + shift
    moved["boxes"][..., :2] += shift
    torch.testing.assert_close(features(name, moved), features(name, inputs))


@pytest.mark.parametrize("kind", [*OF_LETTERS, Position])
def test_a_trace_that_grows_with_its_keyboard_has_the_same_features(kind):
    inputs = batch(torch.float64)
    grown = {**inputs, "points": 1.7 * inputs["points"], "boxes": 1.7 * inputs["boxes"]}
    make = kind if kind is Position else lambda: kind(LETTERS)
    found, expected = (make()(data["points"], data["attention_mask"], data["boxes"]) for data in (grown, inputs))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", FEATURES)
def test_permuted_letters_permute_their_features(name):
    inputs = batch(torch.float64)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    found = features(name, {**inputs, "boxes": inputs["boxes"][:, order]})
    expected = features(name, inputs)
    if name != "trajectory":
        expected = torch.cat([expected[..., order], expected[..., LETTERS:]], -1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", FEATURES)
def test_a_letter_without_a_key_has_weight_0_and_changes_nothing(name):
    inputs = batch(torch.float64)
    absent = torch.tensor([1e3, 1e3, 1.0, 1.0], dtype=torch.float64).expand(3, 1, 4)
    more = {**inputs, "boxes": torch.cat([inputs["boxes"], absent], 1)}
    for kind in OF_LETTERS:
        assert of_letters(kind, more)[..., -1].abs().max() == 0
    if name in ("trajectory", "google2015"):  # the latter is normalized over all letters
        return
    found, expected = features(name, more, LETTERS + 1), features(name, inputs)
    torch.testing.assert_close(torch.cat([found[..., :LETTERS], found[..., LETTERS + 1 :]], -1), expected)


def test_position_ignores_letters_without_a_key():
    inputs = batch(torch.float64)
    absent = torch.tensor([1e3, 1e3, 1.0, 1.0], dtype=torch.float64).expand(3, 1, 4)
    more = {**inputs, "boxes": torch.cat([inputs["boxes"], absent], 1)}
    torch.testing.assert_close(features("trajectory", more), features("trajectory", inputs))
