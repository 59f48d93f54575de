"""calibrate_scaling against the gradients of the base's own weights and of PEFT's LoRA, and its refusals."""

import copy
import math

import peft
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import adapters
from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from adapters.zero_cores import active_deltas, zero_core

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def bert():
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes))


BATCH = {"input_ids": torch.arange(32).reshape(4, 8), "labels": torch.tensor([0, 1, 1, 0])}
TARGETS = {"target_modules": ["query", "value"]}


def decrease(model, batch):
    """Sum of |dL/dG| over the zero cores of a model in evaluation mode."""
    cores = list({id(c): c for _, delta in active_deltas(model) for c in [zero_core(delta.linear)]}.values())
    loss = model.eval()(**batch).loss
    return sum(gradient.abs().sum().item() for gradient in torch.autograd.grad(loss, cores))


def lora_decrease(base, batch, draws=40):
    """The mean over draws of A of the same of B."""
    config = peft.LoraConfig(r=8, lora_alpha=16, **TARGETS)
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    layers = [m for m in model.modules() if isinstance(m, peft.tuners.lora.Linear)]
    total = 0.0
    for _ in range(draws):
        for layer in layers:
            layer.reset_lora_parameters("default", True)
        factors = [layer.lora_B["default"].weight for layer in layers]
        total += sum(g.abs().sum().item() for g in torch.autograd.grad(model(**batch).loss, factors))
    return total / draws


@pytest.mark.parametrize(
    "fields",
    [{"rank": 2}, {"rank": 2, "shared_cores": [2]}, adapters.published("metatt_4d", 4, scaling="auto")],
    ids=["own cores", "shared zero core", "one tensor"],
)
def test_the_decrease_becomes_that_of_lora_on_the_same_batch(fields, tmp_path):
    base = bert()
    model = peft.get_peft_model(copy.deepcopy(base), TensorTrainConfig(**fields, **TARGETS)).train()
    expected, before = lora_decrease(base, BATCH), decrease(copy.deepcopy(model), BATCH)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    config = model.peft_config["default"]
    scaling = config.scaling
    factors = adapters.calibrate_scaling(model, BATCH)
    assert factors["default"] == pytest.approx(expected / before, rel=0.05)
    assert config.scaling == pytest.approx(scaling * factors["default"], rel=1e-3)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    assert decrease(loaded, BATCH) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", ["tt_lora", "tt_single"])
def test_an_attached_adapter_keeps_its_outputs_and_saves_its_numbers(tiny_t5, batch, kind, tmp_path):
    model = adapters.attach(tiny_t5(), {"kind": kind, "rank": 2})
    with torch.no_grad():
        logits = model(**batch).logits
    before = adapters.attachments(model)[0].config
    factor = adapters.calibrate_scaling(model, batch)[kind]
    after = adapters.attachments(model)[0].config
    assert after.scaling == pytest.approx(before.scaling * factor, rel=1e-3)
    assert {delta.scaling for _, delta in active_deltas(model)} == {
        after.scaling,
        *(after.scaling_pattern or {}).values(),
    }
    assert torch.equal(model(**batch).logits, logits)
    adapters.save(model, tmp_path)
    assert adapters.attachments(adapters.load(tiny_t5(), tmp_path))[0].config == after
    assert adapters.calibrate_scaling(model, batch)[kind] == pytest.approx(1, abs=2e-3)


def test_dense_gradients_are_those_of_the_frozen_weights(tiny_t5, batch):
    """The factor in closed form, with dL/dW from autograd on the base."""
    base = tiny_t5()
    weights = [p for name, p in base.named_parameters() if name.endswith(".SelfAttention.v.weight")]
    gradients = torch.autograd.grad(base(**batch).loss, weights)
    theirs = sum(16 * math.sqrt(2 / math.pi / 3 / g.shape[1]) * g.norm(dim=1).sum().item() for g in gradients)
    fields = {"target_modules": ["v"], "sublayers": ["self_attention"], "modes": ["in", "out"], "scaling": 1.0}
    model = adapters.attach(base, {"kind": "tt_lora", "rank": 2, **fields})
    ours = decrease(model, batch)
    assert adapters.calibrate_scaling(model, batch)["tt_lora"] == pytest.approx(theirs / ours, rel=1e-4)


def test_refusals(tiny_t5, batch):
    def attached(*configs):
        return adapters.attach(tiny_t5(), list(configs))

    trained = attached({"kind": "tt_lora", "rank": 2})
    next(delta for _, delta in active_deltas(trained)).linear.cores[-1].data.fill_(1.0)
    of_tasks = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(of_tasks, {"kind": "tt_lora", "rank": 2}, task)
    adapters.set_active_task(of_tasks, "a")
    merged = attached({"kind": "tt_lora", "rank": 2})
    adapters.merge(merged)
    frozen = attached({"kind": "tt_lora", "rank": 2}).requires_grad_(False)
    without_labels = {key: value for key, value in batch.items() if key != "labels"}
    without_labels["decoder_input_ids"] = batch["labels"].clamp(0)
    cases = [
        (attached({"kind": "bitfit"}), batch, "be TT deltas"),
        (trained, batch, "not be trained yet"),
        (of_tasks, batch, "belong to one task"),
        (merged, batch, "be unmerged"),
        (frozen, batch, "train; got 'tt_lora', which is frozen"),
        (attached({"kind": "tt_lora", "init": "principal"}), batch, "have a core that starts at zero"),
        (attached({"kind": "tt_lora", "scaling": 0.0}), batch, "have a finite gradient"),
        (attached({"kind": "tt_lora"}), without_labels, "have a loss"),
    ]
    for model, given, sentence in cases:
        with pytest.raises(ConfigurationError, match=f"calibrated must {sentence}"):
            adapters.calibrate_scaling(model, given)
