"""SwipeForCTC: its loss against a sum over all alignments, padding, folders, 16 bits, and what is refused."""

import itertools

import pytest
import torch
from transformers import AutoModel, AutoModelForCTC

from adapters import ConfigurationError
from tests.third_party.models.swipe.batches import ALPHABET, CLOSE, LENGTHS, batch, ctc, row
from third_party.models.swipe import FEATURES, SwipeConfig, SwipeForCTC
from third_party.models.swipe.ctc import ctc_loss

BOTH = pytest.mark.parametrize("encoder", ["transformer", "conformer"])
LABELS = torch.tensor([[1, 2, 2, 7], [3, 3, -100, -100], [5, -100, -100, -100]])


def collapsed(alignment):
    """The labels that an alignment spells: repetitions once, without blanks."""
    return tuple(label for label, _ in itertools.groupby(alignment) if label != 0)


def by_alignments(log_probs, label):
    """-log of the summed probability of every alignment of a row (time, classes) that spells the label."""
    classes = range(log_probs.shape[1])
    scores = [
        sum(log_probs[frame, letter] for frame, letter in enumerate(alignment))
        for alignment in itertools.product(classes, repeat=len(log_probs))
        if collapsed(alignment) == tuple(label)
    ]
    return -torch.logsumexp(torch.stack(scores), 0) if scores else None


@pytest.mark.parametrize("label", [[1], [1, 2], [2, 2], [1, 2, 1], []], ids=str)
def test_the_loss_is_the_sum_over_alignments(label):
    logits = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    lengths, labels = torch.tensor([5, 4]), torch.tensor([[*label, -100], [2, *[-100] * len(label)]])
    loss, unaligned = ctc_loss(logits, lengths, labels)
    log_probs = logits.log_softmax(-1)
    expected = (by_alignments(log_probs[0], label) + by_alignments(log_probs[1, :4], [2])) / 2
    torch.testing.assert_close(loss, expected)
    assert unaligned == 0
    found, wanted = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_rows_that_cannot_be_aligned_are_counted_and_have_no_gradient():
    """Two equal letters need three frames."""
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    lengths, labels = torch.tensor([5, 2, 1]), torch.tensor([[1, 2], [3, 3], [1, 2]])
    assert by_alignments(logits[1, :2].log_softmax(-1), [3, 3]) is None
    loss, unaligned = ctc_loss(logits, lengths, labels)
    assert unaligned == 2
    torch.testing.assert_close(loss, by_alignments(logits[0].log_softmax(-1), [1, 2]) / 3)
    loss.backward()
    assert logits.grad[1:].abs().sum() == 0
    assert logits.grad[0].abs().sum() > 0


def test_the_loss_of_a_batch_is_the_mean_of_its_rows():
    model, inputs = ctc(torch.float64), batch(torch.float64)
    output = model(**inputs, labels=LABELS)
    rows = [model(**row(inputs, k), labels=LABELS[k : k + 1]).loss for k in range(3)]
    torch.testing.assert_close(output.loss, sum(rows) / 3, **CLOSE)
    assert output.unaligned == 0
    assert output.logits.shape == (3, 9, 1 + len(ALPHABET))


@BOTH
@pytest.mark.parametrize("features", FEATURES)
def test_padding_changes_nothing(encoder, features):
    model, inputs = ctc(torch.float64, encoder=encoder, features=features), batch(torch.float64)
    logits = model(**inputs).logits
    other = {**inputs, "points": torch.where(inputs["attention_mask"][..., None] > 0, inputs["points"], 99.0)}
    for index, length in enumerate(LENGTHS):
        alone = model(**row(inputs, index)).logits
        torch.testing.assert_close(logits[index : index + 1, :length], alone, **CLOSE)
        assert torch.equal(model(**other).logits[index, :length], logits[index, :length])


@BOTH
def test_every_parameter_that_is_used_gets_a_gradient(encoder):
    model = ctc(encoder=encoder, features="gaussians")
    model(**batch(), labels=LABELS).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == ["encoder.embed_tokens.weight"]


@BOTH
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCTC, SwipeForCTC])
def test_a_folder_gives_the_same_model(tmp_path, encoder, auto):
    model, inputs = ctc(encoder=encoder, features="gaussians", layout="small", kernel_size=3), batch()
    with torch.no_grad():
        model.read_in.features.parts[0].log_widths.add_(0.25)
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert isinstance(loaded, SwipeForCTC)
    assert not loaded.training
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert (loaded.config.alphabet, loaded.config.layout, loaded.config.rate) == (ALPHABET, "small", 30.0)


@BOTH
def test_sixteen_bits_are_near(encoder):
    """The features stay in float32, the loss too."""
    model, inputs = ctc(encoder=encoder), batch()
    expected = model(**inputs, labels=LABELS)
    output = model.to(torch.bfloat16)(**inputs, labels=LABELS)
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.logits.float(), expected.logits, atol=0.1, rtol=0)
    output.loss.backward()


@pytest.mark.slow
def test_the_logits_compile_as_one_graph():
    """Traced, not lowered: a break of the graph is an error. The loss is computed outside."""
    model, inputs = ctc(encoder="conformer", num_layers=1), batch()
    found = torch.compile(model, backend="eager", fullgraph=True)(**inputs).logits
    torch.testing.assert_close(found, model(**inputs).logits)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"d_model": 96, "num_layers": 4, "num_heads": 4, "d_ff": 160}, 277_211),
        ({"d_model": 160, "num_layers": 6, "num_heads": 4, "d_ff": 448}, 1_486_555),
    ],
    ids=["0.28 M", "1.5 M"],
)
def test_parameter_counts(sizes, count):
    d, layers, inner = sizes["d_model"], sizes["num_layers"], sizes["d_ff"]
    block = 4 * d * d + 2 * d * inner + 2 * d
    stack = layers * block + 32 * sizes["num_heads"] + d + d  # relative positions, last norm, the unused embedding
    assert count == stack + (26 + 6 + 1) * d + (d + 1) * 27
    with torch.device("meta"):
        model = SwipeForCTC(SwipeConfig(**sizes))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"alphabet": ""}, ("'alphabet'", "at least one letter")),
        ({"alphabet": "aba"}, ("'alphabet'", "each once", "'aba'")),
        ({"features": "nearst"}, ("'features'", "'nearst'", "did you mean 'nearest'")),
        ({"encoder": "lstm"}, ("'encoder'", "conformer", "'lstm'")),
        ({"rate": 0.0}, ("'rate'", "positive")),
        ({"d_model": 15}, ("'d_model'", "multiple of num_heads")),
        ({"d_model": "64"}, ("'d_model'", "integer", "'64'")),
        ({"num_layers": 0}, ("'num_layers'", "at least 1")),
        ({"num_decoder_layers": 0}, ("'num_decoder_layers'", "at least 1")),
        ({"kernel_size": 4}, ("'kernel_size'", "odd", "5")),
        ({"dropout_rate": 1.0}, ("'dropout_rate'", "below 1")),
        ({"layout": 3}, ("'layout'", "string")),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, parts):
    with pytest.raises(ConfigurationError) as caught:
        SwipeConfig(**options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("points", torch.zeros(3, 9, 3), "(3, 9, 2)"),
        ("points", torch.zeros(9, 2), "(batch, time, 2)"),
        ("attention_mask", torch.ones(3, 8), "(3, 9)"),
        ("boxes", torch.zeros(3, 6, 4), "(3, 7, 4)"),
        ("labels", torch.zeros(3, 2, dtype=torch.int64), "1 to 7"),
        ("labels", torch.full((3, 2), 8), "1 to 7"),
        ("labels", torch.ones(2, 2, dtype=torch.int64), "(3, longest)"),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused(key, value, part):
    with pytest.raises(ConfigurationError, match=f"'{key}'") as caught:
        ctc()(**{**batch(), key: value})
    assert part in str(caught.value)


def test_a_conformer_begins_with_the_weights_of_t5_and_of_torch():
    """Their deviations decide whether it learns: at first all of them were 1, and its loss stayed on a plateau."""
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "d_model": 64, "d_ff": 128, "num_heads": 4}
    plain, convolved = (dict(ctc(encoder=name, **sizes).named_parameters()) for name in ("transformer", "conformer"))
    for name, matrix in convolved.items():
        if matrix.dim() > 1 and ".convolution." in name:  # uniform within 1 / sqrt(inputs)
            assert matrix.std().item() == pytest.approx((3 * matrix[0].numel()) ** -0.5, rel=0.1), name
        elif matrix.dim() > 1:
            assert matrix.std().item() == pytest.approx(plain[name].std().item(), rel=0.25), name
