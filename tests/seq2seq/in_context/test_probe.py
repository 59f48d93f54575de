"""The probe on states whose contents are known, and on those of a model."""

import numpy as np
import pytest
import torch

from seq2seq.in_context.function_classes import sample
from seq2seq.in_context.probe import probe_rows, r2_of, states_of, targets
from third_party.models.looped import LoopedConfig, LoopedModel


@pytest.fixture
def prompts():
    return sample("linear", 130, 6, 3, torch.Generator().manual_seed(0))


def model_of(loops=2, **kwargs):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_heads": 2, "input_size": 3, "output_size": 1, "positions": {"number": 12}}
    return LoopedModel(LoopedConfig(**sizes, loops={"num_loops": loops}, **kwargs))


def test_targets_are_sums_and_solutions_of_the_examples_before_the_last(prompts):
    found = targets(prompts)
    x, y = prompts.x[7, :5].double().numpy(), prompts.y[7, :5].double().numpy()
    np.testing.assert_allclose(found["xty"][7], x.T @ y, rtol=1e-6)
    np.testing.assert_allclose(found["weights"][7], np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-4, atol=1e-5)


def test_a_state_that_holds_the_target_is_read_and_one_of_noise_is_not():
    generator = np.random.default_rng(0)
    target, noise = generator.standard_normal((400, 3)), generator.standard_normal((400, 8))
    assert r2_of(noise[:, :3] * 0.1 + target @ generator.standard_normal((3, 3)), target) > 0.9
    assert r2_of(noise, target) < 0.1


def test_the_other_half_is_held_out():
    """A relation that holds in the first half alone is fitted there, and is worth nothing in the other."""
    states = np.random.default_rng(0).standard_normal((200, 4))
    assert r2_of(states, np.concatenate([states[:100, :2], -states[100:, :2]])) < -1


def test_states_that_are_not_finite_are_not_read():
    assert r2_of(np.full((8, 2), np.inf), np.zeros((8, 1))) is None


def test_states_are_those_at_the_last_x_of_all_loops(prompts):
    model = model_of().train()
    states = states_of(model, prompts)
    assert model.training
    assert states.shape == (6, 130, 16)  # 3 b loops
    with torch.no_grad():
        logits = model.read_out(states[1])[:, 0]  # after b loops
        expected = model.eval()(prompts.interleaved()).logits[:, -2, 0]
    torch.testing.assert_close(logits, expected)


def test_rows_are_by_loop_and_do_not_see_the_last_answer(prompts):
    rows = probe_rows(model_of(), prompts)
    assert [row["loop"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(set(row) == {"loop", "xty", "weights"} for row in rows)
    prompts.y[:, -1] += 5
    assert probe_rows(model_of(), prompts) == rows
