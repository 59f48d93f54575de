"""Adapters by task: which of them act, unmerged, merged and after a switch."""

import copy

import pytest
import torch

import adapters
from adapters import ConfigurationError, MergeError

LORA = {"kind": "tt_lora", "rank": 2}


@pytest.fixture
def two_tasks(tiny_t5, trained):
    """A function that builds a T5 with one adapter for each of two tasks, trained."""

    def make(description=LORA, common=None):
        model = tiny_t5()
        if common:
            adapters.attach(model, common)
        for task in ("a", "b"):
            adapters.attach(model, description, task)
        return trained(model)

    return make


def single(model, task):
    """A copy of the model with only the modules of one task, or of all tasks for None."""
    alone = copy.deepcopy(model)
    for module in alone.modules():
        if isinstance(module, adapters.AdapterController):
            for name in list(module.tasks):
                if name != (task or "all_tasks"):
                    del module.tasks[name]
            module.active_task = task
    return alone


@pytest.mark.parametrize("description", [LORA, {"kind": "scale_norm"}, {"kind": "bottleneck", "reduction_factor": 4}])
def test_only_adapters_of_the_active_task_act(two_tasks, tiny_t5, logits, description):
    model = two_tasks(description)
    results = {}
    for task in ("a", "b", None):
        adapters.set_active_task(model, task)
        results[task] = logits(model)
        assert torch.equal(results[task], logits(single(model, task) if task else tiny_t5()))
    assert not torch.allclose(results["a"], results["b"])
    assert not torch.allclose(results["a"], results[None])


def test_task_without_an_adapter_uses_the_one_for_all_tasks(two_tasks, logits):
    model = two_tasks(common=LORA)
    common = single(model, None)
    adapters.set_active_task(model, "c")
    assert torch.equal(logits(model), logits(common))
    adapters.set_active_task(model, "a")
    assert torch.equal(logits(model), logits(single(model, "a")))


def test_kinds_of_one_task_and_of_all_tasks_act_together(two_tasks, logits):
    model = two_tasks(common={"kind": "tt_single", "rank": 2})
    adapters.set_active_task(model, "a")
    both = logits(model)
    adapters.set_active_task(model, None)
    common = logits(model)
    assert not torch.allclose(both, common)
    adapters.set_active_task(model, "a")
    assert torch.equal(logits(model), both)


def test_gradients_reach_the_active_task_only(two_tasks, batch):
    model = two_tasks()
    adapters.set_active_task(model, "b")
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".tasks.b." in name)


def test_switching_the_task_of_a_merged_model_merges_it_again(two_tasks, logits):
    model = two_tasks({**LORA, "delta_bias": "dense"})
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = {}
    for task in ("a", "b"):
        adapters.set_active_task(model, task)
        expected[task] = logits(model)
    adapters.set_active_task(model, "a")
    adapters.merge(model)
    torch.testing.assert_close(logits(model), expected["a"], rtol=1e-4, atol=1e-5)
    adapters.set_active_task(model, "b")
    assert adapters.is_merged(model)
    torch.testing.assert_close(logits(model), expected["b"], rtol=1e-4, atol=1e-5)
    adapters.unmerge(model)
    assert torch.equal(logits(model), expected["b"])
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())


def test_switching_to_a_task_that_cannot_be_merged_raises_and_changes_nothing(tiny_t5, trained, logits):
    model = adapters.attach(tiny_t5(), LORA, "a")
    adapters.attach(model, {"kind": "bottleneck", "reduction_factor": 4}, "b")
    adapters.set_active_task(trained(model), "a")
    adapters.merge(model)
    expected = logits(model)
    with pytest.raises(MergeError, match="bottleneck"):
        adapters.set_active_task(model, "b")
    assert adapters.is_merged(model)
    assert torch.equal(logits(model), expected)
    adapters.unmerge(model)
    adapters.set_active_task(model, "b")
    assert adapters.unmergeable(model)


def test_unknown_task_raises_with_the_nearest_name(two_tasks, logits):
    model = adapters.attach(two_tasks(), {"kind": "tt_single", "rank": 2}, "mrpc")
    adapters.set_active_task(model, "a")
    expected = logits(model)
    with pytest.raises(ConfigurationError, match=r"'mrcp': did you mean 'mrpc'\? Known are a, b, mrpc"):
        adapters.set_active_task(model, "mrcp")
    assert torch.equal(logits(model), expected)


def test_an_adapter_attached_later_follows_the_active_task(two_tasks):
    model = two_tasks()
    adapters.set_active_task(model, "b")
    adapters.attach(model, {"kind": "tt_single", "rank": 2}, "b")
    controllers = [module for module in model.modules() if isinstance(module, adapters.AdapterController)]
    assert {controller.active_task for controller in controllers} == {"b"}
    assert all(controller.active is not None for controller in controllers)


def test_active_task_survives_a_copy_and_is_set_by_a_method_of_the_model(two_tasks, logits):
    model = two_tasks()
    model.set_active_task("b")
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))
    assert torch.equal(logits(model), logits(single(model, "b")))


def test_generate_uses_the_active_task(two_tasks, batch):
    model = two_tasks()
    adapters.set_active_task(model, "a")
    options = {"max_new_tokens": 5, "min_new_tokens": 5}
    tokens = model.generate(batch["input_ids"], **options)
    assert torch.equal(tokens, single(model, "a").generate(batch["input_ids"], **options))


def test_tasks_share_no_core_by_default(tiny_t5):
    description = {**LORA, "shared_cores": [0]}
    model = adapters.attach(adapters.attach(tiny_t5(), description, "a"), description, "b")
    assert len(model.shared_parameters) == 4  # wi and wo, twice
    assert len({parameter.data_ptr() for parameter in model.shared_parameters.values()}) == 4


def test_setting_the_active_task_again_does_not_merge_again(two_tasks, monkeypatch):
    model = two_tasks()
    adapters.set_active_task(model, "a")
    adapters.merge(model)
    monkeypatch.setattr("adapters.active_task.merge", lambda model: pytest.fail("merged again"))
    adapters.set_active_task(model, "a")
    assert adapters.is_merged(model)
