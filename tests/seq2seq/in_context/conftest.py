"""A run of in-context learning that takes a second."""

import pytest


@pytest.fixture(autouse=True)
def blank_pictures():
    """None: the picture of errors is complete."""


@pytest.fixture
def values(tmp_path):
    return {
        "experiment_name": "run",
        "output_root": str(tmp_path),
        "workload": "in_context",
        "model": {"hidden_size": 16, "num_heads": 2, "loops": {"num_loops": 3, "window": 2}},
        "n_dims": 2,
        "n_points": 4,
        "prompts": 256,
        "evaluation_prompts": 40,
        "baselines": ["zero", "least_squares", "averaging", "nearest_neighbours"],
        "max_steps": 8,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "disable_tqdm": True,
        "use_cpu": True,
    }
