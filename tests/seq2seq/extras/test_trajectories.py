"""Trajectory lengths of maps whose answer is known, and of a T5 against transformers' own hidden states."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ellipe
from transformers.modeling_outputs import BaseModelOutput

from seq2seq.extras.trajectories import (
    CURVES,
    Pair,
    curve_points,
    t5_layers,
    t5_trajectory,
    trajectory,
    trajectory_length,
)
from tests.third_party import tiny
from third_party.models.t5 import T5ForConditionalGeneration


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def orthonormal(rows: int, columns: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64))[0]


def circle(radius: float, chords: int, features: int = 7) -> torch.Tensor:
    """A circle about the origin in a random plane."""
    plane = radius * orthonormal(features, 2)
    return curve_points(plane[:, 0], plane[:, 1], "circle", chords)


class TestLength:
    @settings(max_examples=40)
    @given(radius=st.floats(1e-3, 1e3), chords=st.integers(3, 300))
    def test_a_circle_is_as_long_as_its_polygon(self, radius, chords):
        """2 R n sin(pi / n), which is 2 pi R in the limit."""
        exact = 2 * radius * chords * math.sin(math.pi / chords)
        assert float(trajectory_length(circle(radius, chords))) == pytest.approx(exact, rel=1e-12)

    def test_an_arc_is_a_quarter_of_the_circle_and_a_line_its_chord(self):
        x0, x1 = 3 * orthonormal(9, 2).T.reshape(2, 3, 3)
        quarter = curve_points(x0, x1, "arc", 64)
        assert float(trajectory_length(quarter)) == pytest.approx(2 * 3 * 64 * math.sin(math.pi / 256), rel=1e-12)
        line = curve_points(x0, x1, "line", 5)
        assert float(trajectory_length(line)) == pytest.approx(3 * math.sqrt(2), rel=1e-12)

    @pytest.mark.parametrize(("curve", "end"), [("arc", 1), ("line", 1), ("circle", 0)])
    def test_a_curve_begins_and_ends_at_the_sources(self, curve, end):
        sources = torch.randn(2, 4, 3, dtype=torch.float64)
        points = curve_points(*sources, curve, 10)
        assert points.shape == (11, 4, 3)
        torch.testing.assert_close(points[0], sources[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(points[-1], sources[end], rtol=1e-12, atol=1e-12)

    def test_half_precision_is_summed_in_float64(self):
        points = torch.arange(1, 2049, dtype=torch.bfloat16)[:256].reshape(-1, 1)
        assert trajectory_length(points).dtype == torch.float64
        assert float(trajectory_length(points)) == 255.0

    def test_one_point_has_no_length(self):
        assert float(trajectory_length(torch.ones(1, 4))) == 0.0

    @pytest.mark.parametrize("points", [torch.tensor(1.0), torch.empty(0, 3)])
    def test_no_points_are_refused(self, points):
        with pytest.raises(ValueError, match="points along the first dimension; got a tensor of shape"):
            trajectory_length(points)

    @pytest.mark.parametrize("rows", [1, 2, 7, 33, 100])
    def test_chords_between_two_forward_passes_count(self, rows):
        points = circle(2.0, 32)
        assert trajectory(lambda x: {"same": x}, points, rows)["same"] == pytest.approx(
            float(trajectory_length(points)), rel=1e-12
        )


class TestKnownNetworks:
    def test_orthonormal_columns_keep_the_length_and_a_factor_multiplies_it(self):
        points, rotation = circle(2.0, 50), orthonormal(11, 7)
        lengths = trajectory(
            lambda x: {"input": x, "kept": x @ rotation.T, "tripled": 3 * x, "bias": x @ rotation.T + 5}, points
        )
        assert lengths["kept"] == pytest.approx(lengths["input"], rel=1e-12)
        assert lengths["bias"] == pytest.approx(lengths["input"], rel=1e-12)
        assert lengths["tripled"] == pytest.approx(3 * lengths["input"], rel=1e-12)

    def test_a_linear_map_makes_the_circle_an_ellipse(self):
        """Its half axes a and b are singular values, its circumference the elliptic integral 4 a E(1 - b^2 / a^2)."""
        weight = torch.randn(5, 2, dtype=torch.float64)
        b, a = np.sort(torch.linalg.svdvals(weight).numpy())
        points = curve_points(*torch.eye(2, dtype=torch.float64), "circle", 20_000)
        length = trajectory(lambda x: {"ellipse": x @ weight.T}, points, rows=5000)["ellipse"]
        assert length == pytest.approx(4 * a * ellipe(1 - b**2 / a**2), rel=1e-7)

    def test_a_relu_network_bends_a_line_where_its_units_switch(self):
        """Between the switching points the image is straight, so that its length is a finite sum."""
        generator = np.random.default_rng(0)
        first, second = generator.normal(size=(16, 6)), generator.normal(size=(4, 16))
        bias, x0, x1 = generator.normal(size=16), generator.normal(size=6), generator.normal(size=6)
        at_start, slope = first @ x0 + bias, first @ (x1 - x0)
        switches = -at_start / slope
        t = np.array([0.0, *sorted(switches[(switches > 0) & (switches < 1)]), 1.0])
        assert len(t) > 4
        corners = np.maximum(at_start[:, None] + slope[:, None] * t, 0.0)
        exact = np.linalg.norm(np.diff(second @ corners, axis=1), axis=0).sum()

        def network(x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = torch.relu(x @ torch.from_numpy(first).T + torch.from_numpy(bias))
            return {"out": hidden @ torch.from_numpy(second).T}

        ends = torch.from_numpy(x0), torch.from_numpy(x1)
        bent = ends[0] + torch.from_numpy(t)[:, None] * (ends[1] - ends[0])
        assert trajectory(network, bent)["out"] == pytest.approx(exact, rel=1e-12)
        coarse, fine = (trajectory(network, curve_points(*ends, "line", n))["out"] for n in (8, 4096))
        assert coarse < fine <= exact * (1 + 1e-12)
        assert fine == pytest.approx(exact, rel=1e-4)

    @pytest.mark.parametrize("deviation", [0.8, 2.0])
    def test_a_relu_layer_stretches_by_its_deviation_over_the_root_of_two(self, deviation):
        """Half the units are off in expectation: E|relu(W x)'|^2 = s^2 / 2 |x'|^2 for W_ij ~ N(0, s^2 / width)."""
        width, depth = 512, 4
        weights = [deviation * torch.randn(width, width) / width**0.5 for _ in range(depth)]

        def network(x: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = {"0": x}
            for index, weight in enumerate(weights, 1):
                outputs[str(index)] = torch.relu(outputs[str(index - 1)] @ weight.T)
            return outputs

        points = curve_points(*torch.randn(2, width), "circle", 256)
        lengths = trajectory(network, points)
        growth = [lengths[str(index + 1)] / lengths[str(index)] for index in range(depth)]
        assert growth == pytest.approx([deviation / 2**0.5] * depth, rel=0.1)

    @pytest.mark.parametrize(("deviation", "grows"), [(4.0, True), (0.5, False)])
    def test_a_deep_tanh_network_grows_or_shrinks_exponentially_with_depth(self, deviation, grows):
        """Theorem 1 of Raghu et al.: large weights stretch by a factor at each layer; small ones contract."""
        width, depth = 128, 5
        weights = [deviation * torch.randn(width, width) / width**0.5 for _ in range(depth)]

        def network(x: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = {"0": x}
            for index, weight in enumerate(weights, 1):
                outputs[str(index)] = torch.tanh(outputs[str(index - 1)] @ weight.T)
            return outputs

        lengths = trajectory(network, curve_points(*torch.randn(2, width), "circle", 4000), rows=1000)
        growth = [lengths[str(index + 1)] / lengths[str(index)] for index in range(1, depth)]
        assert (min(growth) > 1.3) if grows else (max(growth) < 0.6)


PAIRS = [Pair([3, 4, 5, 1], [7, 8, 1], [0, 5, 6]), Pair([9, 4, 1], [7, 12, 11, 30, 1], [0, 2])]


@pytest.fixture(scope="module", params=list(tiny.FORMS))
def base(request, tmp_path_factory):
    """A random T5 of each form, in its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny.base_model(request.param).save_pretrained(folder)
    return folder


@pytest.fixture
def t5():
    return tiny.base_model("relu")


def arc(model, pair: Pair, chords: int = 128) -> torch.Tensor:
    """The curve of a pair as it enters the model."""
    length = max(len(pair.first), len(pair.second))
    sources = [[*ids, *[0] * (length - len(ids))] for ids in (pair.first, pair.second)]
    return curve_points(*model.get_input_embeddings()(torch.tensor(sources)).detach(), "arc", chords)


class TestT5:
    def test_lengths_in_the_model_are_those_of_its_hidden_states(self, t5):
        """transformers gives the state before each block, and after the last one the state after the norm."""
        expected = {}
        for pair in PAIRS:
            points = arc(t5, pair)
            decoder_input = torch.tensor(pair.decoder_input).expand(len(points), -1)
            out = t5(inputs_embeds=points, decoder_input_ids=decoder_input, output_hidden_states=True)
            for stack, states in (("encoder", out.encoder_hidden_states), ("decoder", out.decoder_hidden_states)):
                named = {f"{stack} {index - 1}": state for index, state in enumerate(states)} | {
                    f"{stack} norm": states[-1]
                }
                for name, state in named.items():
                    expected[name] = expected.get(name, 0.0) + float(trajectory_length(state.detach())) / len(PAIRS)
        measured = t5_trajectory(t5, PAIRS, pad_token_id=0)
        for name in ("encoder 0", "encoder norm", "decoder 0", "decoder norm"):
            assert measured[name] == pytest.approx(expected[name], rel=1e-5)
        assert measured["input"] == pytest.approx(expected["encoder -1"], rel=1e-5)

    @pytest.mark.parametrize("index", [0, 1])
    def test_an_encoder_block_alone_is_the_first_block_of_a_model(self, t5, index):
        moved = copy.deepcopy(t5)
        moved.encoder.block[0].load_state_dict(t5.encoder.block[index].state_dict(), strict=False)  # keeps its biases
        alone = t5_trajectory(t5, PAIRS, 0)[f"encoder {index} alone"]
        assert alone == pytest.approx(t5_trajectory(moved, PAIRS, 0)["encoder 0"], rel=1e-6)

    @pytest.mark.parametrize("index", [0, 1])
    def test_a_decoder_block_alone_sees_the_curve_in_place_of_the_encoder(self, t5, index):
        moved = copy.deepcopy(t5)
        moved.decoder.block[0].load_state_dict(t5.decoder.block[index].state_dict(), strict=False)
        points = arc(t5, PAIRS[0])
        out = moved(
            encoder_outputs=BaseModelOutput(points),
            decoder_input_ids=torch.tensor(PAIRS[0].decoder_input).expand(len(points), -1),
            output_hidden_states=True,
        )
        expected = float(trajectory_length(out.decoder_hidden_states[1].detach()))
        assert t5_trajectory(t5, PAIRS[:1], 0)[f"decoder {index} alone"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("adapter", [tiny.LORA, tiny.BOTTLENECK, {"kind": "tt_layer_norm"}], ids=str)
    def test_adapters_at_their_start_have_exactly_the_lengths_of_the_base(self, base, adapter):
        bare = t5_trajectory(T5ForConditionalGeneration.from_pretrained(base), PAIRS, 0)
        adapted = t5_trajectory(tiny.adapted_model(base, adapter), PAIRS, 0)
        assert adapted == (bare if adapter["kind"] != "tt_layer_norm" else pytest.approx(bare, rel=1e-5))

    def test_adapters_that_are_scaled_to_nothing_have_exactly_the_lengths_of_the_base(self, base):
        model = tiny.adapted_model(base, {**tiny.LORA, "scaling": 0.0})
        tiny.randomize(model)
        bare = t5_trajectory(T5ForConditionalGeneration.from_pretrained(base), PAIRS, 0)
        assert t5_trajectory(model, PAIRS, 0) == bare

    def test_adapters_that_do_something_have_others(self, base):
        model = tiny.adapted_model(base)
        before = t5_trajectory(model, PAIRS, 0)
        tiny.randomize(model)
        after = t5_trajectory(model, PAIRS, 0)
        assert after["input"] == before["input"]
        assert after["encoder 0"] != before["encoder 0"]

    def test_nothing_is_left_behind(self):
        model = tiny.base_model("relu", dropout=0.3).train()
        state = torch.get_rng_state()
        first, second = t5_trajectory(model, PAIRS, 0), t5_trajectory(model, PAIRS, 0)
        assert first == second  # no dropout
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
        assert [name for name, part in model.named_modules() if part._forward_hooks or part._forward_pre_hooks] == []
        assert {parameter.grad for parameter in model.parameters()} == {None}

    def test_hooks_are_gone_after_an_error(self, t5):
        with pytest.raises(RuntimeError):
            t5_layers(t5, torch.zeros(2, 3, 5), torch.zeros(1, dtype=torch.long))
        assert [name for name, part in t5.named_modules() if part._forward_hooks or part._forward_pre_hooks] == []

    @pytest.mark.parametrize("curve", list(CURVES))
    def test_each_curve_can_be_measured(self, t5, curve):
        measured = t5_trajectory(t5, PAIRS[:1], 0, curve, chords=8)
        assert measured["input"] > 0
        assert all(math.isfinite(value) for value in measured.values())
