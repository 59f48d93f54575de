"""lm_head: the output projection trains, and with it the embedding if they are tied."""

import pytest
import torch
import transformers

import adapters
from adapters import ConfigurationError

LM_HEAD = {"kind": "lm_head"}
TIED = "The output projection is tied to the embedding: 'shared.weight' trains in both roles."


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def t5(tied, model_class=transformers.T5ForConditionalGeneration, **sizes):
    sizes = {"vocab_size": 50, "d_model": 24, "d_kv": 6, "d_ff": 48, "num_layers": 1, "num_heads": 4} | sizes
    model = model_class(transformers.T5Config(**sizes, decoder_start_token_id=0))
    if not tied:  # as when loaded from a checkpoint with both tensors
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


@pytest.mark.parametrize(("tied", "name", "notes"), [(True, "shared.weight", [TIED]), (False, "lm_head.weight", [])])
def test_the_projection_trains_and_a_tied_embedding_is_logged(caplog, tied, name, notes):
    caplog.set_level("INFO", logger="adapters")
    model = adapters.attach(t5(tied), LM_HEAD)
    assert (model.lm_head.weight is model.shared.weight) == tied
    assert trainable(model) == {name}
    assert model.lm_head.weight.requires_grad
    assert [record.getMessage() for record in caplog.records] == notes
    reasons = {row.name: row.reason for row in adapters.freezing_report(model).rows}
    assert reasons[name] == "decided by adapter kind 'lm_head'"


def test_only_a_tied_projection_gets_the_gradient_of_the_embedding(batch):
    def gradients(tied):
        torch.manual_seed(0)
        model = adapters.attach(t5(tied).eval(), LM_HEAD)
        with torch.no_grad():
            model.lm_head.weight.copy_(model.shared.weight)
        model(**batch).loss.backward()
        return model.lm_head.weight.grad, model.shared.weight.grad

    tied, same = gradients(True)
    untied, none = gradients(False)
    assert same is tied
    assert none is None
    unseen = [piece for piece in range(50) if piece not in {0, *batch["input_ids"].flatten().tolist()}]
    unseen = [piece for piece in unseen if piece not in batch["labels"]]
    assert len(unseen) > 10
    torch.testing.assert_close(tied[unseen], untied[unseen])  # pieces that are not in the batch
    assert not torch.allclose(tied, untied)


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_holds_only_the_projection(tmp_path, trained, logits, tied):
    torch.manual_seed(0)
    base = t5(tied).eval()
    torch.manual_seed(0)
    model = trained(adapters.attach(t5(tied).eval(), LM_HEAD))
    adapters.save(model, tmp_path)
    assert list(adapters.adapter_state_dict(model)) == ["shared.weight" if tied else "lm_head.weight"]
    assert not torch.allclose(logits(base), logits(model))
    loaded = adapters.load(base, tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert (loaded.lm_head.weight is loaded.shared.weight) == tied


def test_lm_head_composes_with_a_bias_of_the_projection(trained, logits):
    model = trained(adapters.attach(t5(False).eval(), [LM_HEAD, {"kind": "bitfit", "sublayers": ["feed_forward"]}]))
    counts = adapters.summary(model)
    assert counts.groups["bitfit"].trainable == 2 * (48 + 24 + 24) + 50
    assert "lm_head" not in counts.groups
    assert model.lm_head.weight.requires_grad
    unmerged = logits(model)
    adapters.merge(model)
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "tied"),
    [
        ({"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, True),
        ({"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12, "feed_forward_proj": "gated-gelu"}, False),
    ],
    ids=["t5-base", "v1.1-base"],
)
def test_parameter_counts_of_real_architectures(sizes, tied):
    with torch.device("meta"):
        model = t5(tied, **{"d_kv": 64, **sizes, "vocab_size": 32_128})
    counts = adapters.summary(adapters.attach(model, LM_HEAD))
    assert counts.total.trainable == 32_128 * sizes["d_model"]
    assert counts.groups["base weights"].trainable == counts.total.trainable


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layers": [0]}, "'layers' .* is not supported, as the output projection trains"),
        ({"stacks": ["decoder"]}, "'stacks' .* is not supported, as the output projection trains"),
        ({"trainable": False}, "'trainable'"),
    ],
)
def test_unsupported_fields_raise_an_error(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        adapters.AdapterConfig.from_dict({**LM_HEAD, **fields})


@pytest.mark.parametrize("architecture", [transformers.T5EncoderModel, transformers.T5Model])
def test_a_model_without_projection_raises_an_error_and_is_unchanged(snapshot, architecture):
    model = t5(True, architecture)
    before = snapshot(model)
    with pytest.raises(ConfigurationError, match=rf"output projection; got a {architecture.__name__} without"):
        adapters.attach(model, LM_HEAD)
    assert snapshot(model) == before


def test_lm_head_cannot_be_attached_for_one_task(tiny_t5):
    with pytest.raises(ConfigurationError, match="which all tasks share"):
        adapters.attach(tiny_t5(), LM_HEAD, "rte")
