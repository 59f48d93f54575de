"""Each example learns its task with few parameters, and gives the same results after reloading and merging."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from examples._loop import Measured, held_out, measure, report, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL sets it
]

EXAMPLES = sorted(path.stem for path in Path("examples").glob("[!_]*.py"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_learns_reloads_and_merges(name, capsys):
    example = importlib.import_module(f"examples.{name}")
    measured = example.main()
    assert measured["loss_after"] < 0.5 * measured["loss_before"]
    assert measured["accuracy_after"] > 0.8
    assert measured["trained"] < 0.3 * sum(parameter.numel() for parameter in example.base().parameters())
    assert measured["reload_identical"]
    assert measured["merge_difference"] < 1e-5
    printed = capsys.readouterr().out
    assert f"trained    {measured['trained']:,} parameters beside" in printed
    assert "reloaded   logits identical" in printed


def test_every_example_is_in_the_table():
    table = Path("examples/README.md").read_text()
    for name in EXAMPLES:
        assert f"| `python -m examples.{name}` |" in table


def test_base_is_deterministic():
    """Only the adapter is saved, so reloading needs an identical base."""
    base = importlib.import_module("examples.gpt2").base
    for one, other in zip(base().parameters(), base().parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "make_batch", "steps"), [("bert", "sentences", 120), ("vit", "images", 120)])
def test_a_new_head_alone_does_not_learn_the_task(name, make_batch, steps):
    example = importlib.import_module(f"examples.{name}")
    make_batch = getattr(example, make_batch)
    model = example.base()
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path.startswith("classifier."))
    train(model, make_batch, steps)
    assert measure(model, held_out(make_batch)).accuracy < 0.7


def test_the_table_reports_differences(capsys):
    good = Measured(0.5, 0.75, torch.tensor([1.0, -2.0]))
    bad = Measured(0.5, 0.75, torch.tensor([1.5, -2.0]))
    measured = report(10, torch.nn.Linear(9, 10), good, good, reloaded=bad, merged=bad)
    assert (measured["reload_identical"], measured["merge_difference"]) == (False, 0.25)
    printed = capsys.readouterr().out
    assert "trained    10 parameters beside 100 frozen ones, 10.0%" in printed
    assert "logits differ" in printed
    assert "within 2e-01 of the largest" in printed


def test_accuracy_ignores_labels_of_minus_100():
    logits = torch.eye(4)[torch.tensor([[1, 2, 3, 0]])]  # (1, 4, 4): predicts 1 2 3 0

    class FixedLogits(torch.nn.Module):
        def forward(self, labels):
            return SimpleNamespace(loss=torch.tensor(0.0), logits=logits)

    model = FixedLogits()
    assert measure(model, {"labels": torch.tensor([[1, 2, 0, -100]])}).accuracy == pytest.approx(2 / 3)
    assert measure(model, {"labels": torch.tensor([[-100, 1, 2, 0]])}, causal=True).accuracy == pytest.approx(2 / 3)
