"""The module that acts at one place, by task."""

import pytest
import torch
from torch import nn

from adapters import AdapterController, ConfigurationError


def test_module_of_the_active_task_acts_else_that_of_all_tasks_else_none():
    controller = AdapterController()
    own, common = nn.Linear(3, 3), nn.Linear(3, 3)
    assert controller.active is None
    controller.add("rte", own)
    assert controller.active is None
    controller.active_task = "rte"
    assert controller.active is own
    controller.active_task = "mrpc"
    assert controller.active is None
    controller.add(None, common)
    assert controller.active is common
    controller.active_task = "rte"
    assert controller.active is own
    x = torch.randn(2, 3)
    assert torch.equal(controller(x), own(x))


@pytest.mark.parametrize("task", ["rte", None])
def test_a_task_has_one_module(task):
    controller = AdapterController()
    controller.add(task, nn.Identity())
    with pytest.raises(ConfigurationError, match="got a second one for task"):
        controller.add(task, nn.Identity())
