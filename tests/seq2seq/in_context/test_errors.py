"""The metric, its standard error and its band against closed forms and scipy."""

import numpy as np
import pytest
from scipy.stats import bootstrap, sem

from seq2seq.in_context.errors import CONFIDENCE, bootstrap_band, metrics_of, squared_errors


def test_an_error_is_divided_by_dims_once():
    predictions, y = np.array([[[1.0, 2.0]], [[3.0, 5.0]]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(squared_errors(predictions, y, 2), [[[0, 2]], [[4.5, 8]]])


def test_metrics_are_of_the_trained_loop_and_the_last_one():
    squares = np.array([[[4.0, 2.0], [3.0, 1.0], [9.0, 7.0]], [[4.0, 2.0], [1.0, 2.0], [9.0, 9.0]]])
    found = metrics_of(squares, 2)
    assert found.pop("standard_error") == pytest.approx(sem([1, 2]))
    assert found == {"error": 1.75, "last_point_error": 1.5, "average_metrics": -1.5, "error_at_3b": 8.0}


def test_a_band_is_a_percentile_bootstrap():
    squares = np.random.default_rng(1).exponential(size=(200, 3)) * [1, 2, 3]
    expected = bootstrap((squares,), np.mean, axis=0, confidence_level=CONFIDENCE, method="percentile")
    np.testing.assert_allclose(bootstrap_band(squares), [*expected.confidence_interval], rtol=0.03)
    np.testing.assert_array_equal(bootstrap_band(squares), bootstrap_band(squares))


def test_a_band_keeps_the_dims_and_has_no_width_without_spread():
    band = bootstrap_band(np.full((20, 2, 3), 5.0))
    assert band.shape == (2, 2, 3)
    np.testing.assert_allclose(band, 5)


def test_bands_cover_the_expectation():
    """Nine in ten, over 200 samples of 100 squared normals, whose bands are a little narrow."""
    generator = np.random.default_rng(0)
    squares = generator.standard_normal((100, 200)) ** 2
    low, high = bootstrap_band(squares)
    assert 0.82 < np.mean((low < 1) & (high > 1)) < 0.95
