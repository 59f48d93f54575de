"""The PEFT tuner on a T5, a Llama and a BERT, held against dense algebra in float64 and against PEFT's own promises."""

import ast
import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import AutoPeftModelForSeq2SeqLM, PeftConfig, PeftModel, PeftType, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.error import NoMatchingPeftModuleError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from adapters import ConfigurationError, MergeError, TensorTrainLinear, TensorTrainLoRAConfig
from adapters.peft import TensorTrainConfig, TensorTrainModel, TensorTrainPeftLinear, register

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.arange(1, 9).reshape(2, 4)
ROOT = Path(__file__).resolve().parents[3]


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0)).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).eval()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    return BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2)).eval()


@torch.no_grad()  # kernels with and without gradients round differently, in the base model already
def logits(model: nn.Module) -> Tensor:
    is_t5 = getattr(model.config, "model_type", None) == "t5"
    return model(input_ids=TOKENS, **({"decoder_input_ids": TOKENS} if is_t5 else {})).logits


def adapted(base: PreTrainedModel | None = None, **fields) -> PeftModel:
    """A base, the tiny T5 unless said otherwise, with deltas that are far from zero."""
    return scrambled(get_peft_model(t5() if base is None else base, TensorTrainConfig(**{"rank": 3, **fields})).eval())


@torch.no_grad()
def scrambled(model: nn.Module, name: str = "default", seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for layer in layers(model).values():
        if name in layer.tt_lora_delta:
            for parameter in layer.tt_lora_delta[name].parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def layers(model: nn.Module) -> dict[str, TensorTrainPeftLinear]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, TensorTrainPeftLinear)}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def dense_delta(layer: TensorTrainPeftLinear, name: str = "default") -> np.ndarray:
    """s T (out, in) of three cores (r, m, n, s), in float64."""
    delta = layer.tt_lora_delta[name]
    cores = [core.detach().double().numpy() for core in delta.linear.cores]
    full = np.einsum("amnb,bpqc,crsd->mprnqs", *cores)  # (1, m1, n1, b) x (b, m2, n2, c) x (c, m3, n3, 1)
    return delta.scaling * full.reshape(layer.base_layer.weight.shape)


MODELS = [
    pytest.param(t5, None, 8, id="t5"),
    pytest.param(t5, "all-linear", 32, id="t5, every linear"),
    pytest.param(llama, None, 4, id="llama"),
    pytest.param(llama, ["up_proj", "down_proj"], 4, id="llama, feed-forward"),
    pytest.param(bert, r".*\.intermediate\.dense", 2, id="bert, by pattern"),
]


class TestRegistration:
    @pytest.mark.parametrize("path", sorted((ROOT / "adapters").glob("*.py")), ids=lambda path: path.name)
    def test_importing_adapters_leaves_peft_alone(self, path):
        imported = [
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        ]
        packages = {name.removeprefix("adapters.").partition(".")[0] for name in imported}
        assert "peft" not in packages

    @pytest.mark.parametrize(
        "member",
        [
            lambda: PeftType("TT_LORA"),
            lambda: PeftType["TT_LORA"],
            lambda: TensorTrainConfig().peft_type,
            lambda: copy.deepcopy(PeftType.TT_LORA),
            lambda: pickle.loads(pickle.dumps(PeftType.TT_LORA)),
            lambda: list(PeftType)[-1],
        ],
    )
    def test_the_new_member_is_one_like_the_others(self, member):
        assert member() is PeftType.TT_LORA
        assert isinstance(member(), PeftType)
        assert member().name == member().value == member() == "TT_LORA"

    def test_a_second_time_changes_nothing(self):
        before = list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)
        register()
        assert (list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)) == before
        assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.TT_LORA] is TensorTrainModel

    def test_a_method_of_that_name_from_elsewhere_is_not_overwritten(self, monkeypatch):
        monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.TT_LORA, nn.Module)
        with pytest.raises(KeyError, match="tt_lora"):
            register()


class TestConfig:
    FIELDS = {  # noqa: RUF012 - a constant of the tests
        "raw_shape": [[2, 3, 4], [2, 2, 4]],
        "rank": [2, 3],
        "init": 0.25,
        "frozen_cores": [-1],
        "disabled_cores": [0],
        "core_activation": "gelu",
        "bias": "tt",
        "scaling": 2,
        "dropout": 0.1,
    }

    def test_fields_mean_what_they_mean_in_the_native_kind(self):
        assert TensorTrainConfig(**self.FIELDS).to_adapter_config() == TensorTrainLoRAConfig(**self.FIELDS)
        assert TensorTrainConfig().to_adapter_config() == TensorTrainLoRAConfig()
        chosen = {"d": 2, "shape_mode": "mixed"}
        assert TensorTrainConfig(**chosen).to_adapter_config() == TensorTrainLoRAConfig(**chosen)

    def test_values_are_kept_in_one_form(self):
        config = TensorTrainConfig(raw_shape=((4, 4), (2, 8)), frozen_cores=(-1,))
        assert (config.raw_shape, config.d, config.frozen_cores) == ([[4, 4], [2, 8]], 2, [1])

    def test_file_gives_back_an_equal_config(self, tmp_path):
        config = TensorTrainConfig(**self.FIELDS, target_modules={"q", "wi"}, layers_to_transform=[0, 1])
        config.save_pretrained(tmp_path)
        loaded = PeftConfig.from_pretrained(tmp_path)
        assert type(loaded) is TensorTrainConfig
        assert loaded.to_dict() == config.to_dict()

    @pytest.mark.parametrize("names", [list, set], ids=["list", "set"])
    def test_file_is_written_with_sets_sorted(self, names, tmp_path):
        linears = ["k", "o", "q", "v", "wi", "wo"]
        TensorTrainConfig(target_modules=names(linears), exclude_modules=names(linears)).save_pretrained(tmp_path)
        written = json.loads((tmp_path / "adapter_config.json").read_text())
        assert written["target_modules"] == written["exclude_modules"] == linears

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("rank", 0),
            ("rank", "8"),
            ("rank", [2]),
            ("d", 0),
            ("raw_shape", [[2, 8], [24]]),
            ("shape_mode", "upward"),
            ("init", "xavier"),
            ("frozen_cores", [3]),
            ("frozen_cores", [0, 1, 2]),
            ("core_activation", "swish"),
            ("bias", "all"),
            ("scaling", "1"),
            ("dropout", 1.0),
        ],
    )
    def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_key(self, key, value):
        with pytest.raises(ConfigurationError, match=f"Key '{key}'"):
            TensorTrainConfig(**{key: value})


class TestInjection:
    @pytest.mark.parametrize(("build", "targets", "count"), MODELS)
    def test_at_step_zero_the_logits_are_the_base_s(self, build, targets, count):
        model = get_peft_model(build(), TensorTrainConfig(rank=3, target_modules=targets)).eval()
        assert len(layers(model)) == count
        assert torch.equal(logits(model), logits(build()))

    @pytest.mark.parametrize(("build", "targets", "count"), MODELS)
    def test_only_cores_train(self, build, targets, count):
        model = get_peft_model(build(), TensorTrainConfig(rank=3, target_modules=targets))
        assert trainable(model) == {
            f"{path}.tt_lora_delta.default.linear.cores.{k}" for path in layers(model) for k in range(3)
        }

    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    def test_the_delta_is_the_dense_one(self, bias):
        model = adapted(
            bert(), target_modules=["query", "dense"], exclude_modules=["pooler.dense"], scaling=0.5, bias=bias
        )
        dense = bert()
        for path, layer in layers(model).items():
            linear = dense.get_submodule(path.removeprefix("base_model.model."))
            linear.weight.data += torch.from_numpy(dense_delta(layer)).float()
            shift = layer.tt_lora_delta["default"].linear.bias
            if bias == "dense":
                linear.bias.data += 0.5 * shift.data
            if bias == "tt":
                cores = [core.detach().numpy() for core in shift.cores]
                linear.bias.data += 0.5 * torch.from_numpy(np.einsum("amnb,bpqc,crsd->mpr", *cores).reshape(-1))
        torch.testing.assert_close(logits(model), logits(dense), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(logits(model), logits(bert()), atol=1e-2)

    def test_a_step_of_training_moves_cores_and_nothing_else(self):
        model = get_peft_model(t5(), TensorTrainConfig(rank=3, frozen_cores=[0])).train()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(2):  # in the first step only the core at zero has a gradient
            optimizer.zero_grad()
            model(input_ids=TOKENS, labels=TOKENS).loss.backward()
            optimizer.step()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved == trainable(model)
        assert moved == {f"{path}.tt_lora_delta.default.linear.cores.{k}" for path in layers(model) for k in (1, 2)}

    @pytest.mark.parametrize(
        "event",
        [
            lambda model: None,
            lambda model: model.set_adapter("default"),
            lambda model: model.set_requires_grad("default"),
            lambda model: (model.disable_adapter_layers(), model.enable_adapter_layers()),
            lambda model: (model.merge_adapter(), model.unmerge_adapter()),
            lambda model: model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["wo"])),
        ],
        ids=["start", "set_adapter", "set_requires_grad", "disable and enable", "merge and unmerge", "add_adapter"],
    )
    def test_frozen_and_disabled_cores_stay_frozen(self, event):
        model = adapted(frozen_cores=[0], disabled_cores=[1], target_modules=["wo"])
        event(model)
        assert trainable(model) == {f"{path}.tt_lora_delta.default.linear.cores.2" for path in layers(model)}

    @pytest.mark.parametrize("training", [True, False])
    def test_deltas_train_or_evaluate_as_their_base_does(self, training):
        model = get_peft_model(t5().train(training), TensorTrainConfig(rank=3, dropout=0.5))
        for layer in layers(model).values():
            assert {module.training for module in layer.modules()} == {training}
        model.train(training).add_adapter("second", TensorTrainConfig(rank=2, dropout=0.5))
        for layer in layers(model).values():
            assert {module.training for module in layer.modules()} == {training}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_deltas_are_float32_on_a_base_of_fewer_bits(self, dtype):
        model = adapted(llama().to(dtype), bias="dense")
        assert {p.dtype for layer in layers(model).values() for p in layer.tt_lora_delta.parameters()} == {
            torch.float32
        }
        assert logits(model).dtype == dtype

    def test_a_new_head_trains_and_is_saved_beside_the_deltas(self, tmp_path):
        model = adapted(bert(), task_type=TaskType.SEQ_CLS)
        heads = {name for name in trainable(model) if ".tt_lora_delta." not in name}
        assert heads == {f"base_model.model.classifier.modules_to_save.default.{name}" for name in ("weight", "bias")}
        model.base_model.model.classifier.modules_to_save["default"].weight.data.normal_()
        model.save_pretrained(tmp_path)
        assert torch.equal(logits(PeftModel.from_pretrained(bert(), tmp_path).eval()), logits(model))

    @pytest.mark.parametrize(
        ("fields", "error", "sentence"),
        [
            ({"target_modules": ["nowhere"]}, NoMatchingPeftModuleError, "nowhere"),
            ({"target_modules": ["wi", "layer_norm"]}, TypeError, "given was a T5LayerNorm at encoder"),
            (
                {"raw_shape": [[2, 3, 4], [2, 2, 4]], "target_modules": ["wi", "q"]},
                ConfigurationError,
                "Key 'raw_shape'.*the out size 16",
            ),
            ({"rank": [2, 500]}, ConfigurationError, "does not fit 16 -> 24"),
        ],
        ids=["unknown target", "no linear", "shape of wi, not of q", "rank that no bond can use"],
    )
    def test_what_does_not_fit_is_refused_and_the_base_is_as_it_was(self, fields, error, sentence):
        base = t5()
        with pytest.raises(error, match=sentence):
            get_peft_model(base, TensorTrainConfig(**fields))
        assert [name for name, _ in base.named_parameters()] == [name for name, _ in t5().named_parameters()]
        assert all(parameter.requires_grad for parameter in base.parameters())

    def test_unknown_architecture_wants_target_modules(self):
        with pytest.raises(ValueError, match="target_modules"):
            get_peft_model(nn.Sequential(nn.Linear(8, 8)), TensorTrainConfig())


def by_peft(base: Path, folder: Path) -> nn.Module:
    return PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), folder)


def by_peft_without_memory(base: Path, folder: Path) -> nn.Module:
    return PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), folder, low_cpu_mem_usage=True)


def by_auto_class(base: Path, folder: Path) -> nn.Module:
    return AutoPeftModelForSeq2SeqLM.from_pretrained(folder)


def by_transformers(base: Path, folder: Path) -> nn.Module:
    model = T5ForConditionalGeneration.from_pretrained(base)
    info = model.load_adapter(folder)
    assert info.missing_keys == info.unexpected_keys == info.mismatched_keys == set()
    return model


class TestFiles:
    def test_a_folder_holds_a_config_and_adapter_tensors_only(self, tmp_path):
        model = adapted(target_modules={"wi", "wo", "q"}, bias="dense")
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        assert {key.replace(".tt_lora_delta.", ".tt_lora_delta.default.") for key in tensors} == trainable(model)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "TT_LORA"

    def test_saving_twice_writes_the_same_bytes(self, tmp_path):
        for folder, names in (("a", ["wi", "wo", "q", "k"]), ("b", ["k", "q", "wo", "wi"])):
            adapted(target_modules=set(names)).save_pretrained(tmp_path / folder)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("load", [by_peft, by_peft_without_memory, by_auto_class, by_transformers])
    def test_every_road_back_gives_identical_logits(self, load, dtype, tmp_path):
        t5().to(dtype).save_pretrained(tmp_path / "base")
        base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
        model = adapted(base, task_type=TaskType.SEQ_2_SEQ_LM, bias="tt", frozen_cores=[0])
        model.save_pretrained(tmp_path / "adapter")
        loaded = load(tmp_path / "base", tmp_path / "adapter").eval()
        assert torch.equal(logits(loaded), logits(model))
        assert trainable(loaded) == set()
        for layer, same in zip(layers(loaded).values(), layers(model).values(), strict=True):
            for tensor, other in zip(layer.tt_lora_delta.parameters(), same.tt_lora_delta.parameters(), strict=True):
                assert tensor.dtype == torch.float32
                assert torch.equal(tensor, other)

    def test_a_loaded_adapter_trains_on_where_asked(self, tmp_path):
        model = adapted(frozen_cores=[1])
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(t5(), tmp_path, is_trainable=True)
        assert trainable(loaded) == trainable(model) != set()

    def test_the_adapter_s_name_is_not_in_the_file(self, tmp_path):
        model = adapted()
        model.save_pretrained(tmp_path)
        other = PeftModel.from_pretrained(t5(), tmp_path, adapter_name="linear").eval()  # a part of the paths, too
        assert torch.equal(logits(other), logits(model))
        other.save_pretrained(tmp_path)
        again = load_file(tmp_path / "linear" / "adapter_model.safetensors")
        assert again.keys() == load_file(tmp_path / "adapter_model.safetensors").keys()


class TestMerge:
    @settings(max_examples=40, deadline=None)
    @given(
        out_features=st.sampled_from([6, 8, 12]),
        in_features=st.sampled_from([4, 10, 16]),
        rank=st.integers(1, 4),
        scaling=st.floats(-4, 4, width=16),
        base_bias=st.booleans(),
        bias=st.sampled_from(["none", "dense", "tt"]),
        dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
        seed=st.integers(0, 2**16),
    )
    def test_the_weight_is_the_float64_sum_cast_once_and_unmerging_gives_the_bits_back(
        self, out_features, in_features, rank, scaling, base_bias, bias, dtype, seed
    ):
        torch.manual_seed(seed)
        linear = nn.Linear(in_features, out_features, bias=base_bias, dtype=dtype)
        before = {name: tensor.clone() for name, tensor in linear.state_dict().items()}
        config = TensorTrainConfig(rank=rank, scaling=scaling, bias=bias, target_modules=["0"])
        model = scrambled(get_peft_model(nn.Sequential(linear), config), seed=seed)
        (layer,) = layers(model).values()
        total = before["weight"].double().numpy() + dense_delta(layer)
        for _ in range(3):
            model.merge_adapter(safe_merge=True)
            assert linear.weight.dtype == dtype
            steps = abs(linear.weight.double().detach().numpy() - total)
            assert (steps <= max(torch.finfo(dtype).eps, 1e-6) * (1 + abs(total))).all()
            assert (linear.bias is not None) == (base_bias or bias != "none")
            model.unmerge_adapter()
            assert linear.state_dict().keys() == before.keys()
            assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state_dict().items())

    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    @pytest.mark.parametrize("build", [t5, llama, bert])
    def test_merged_and_unmerged_logits_agree(self, build, bias):
        model = adapted(build(), bias=bias)
        unmerged = logits(model)
        model.merge_adapter()
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
        model.unmerge_adapter()
        assert torch.equal(logits(model), unmerged)

    @pytest.mark.parametrize("bias", ["none", "dense"])
    @pytest.mark.parametrize("build", [t5, llama, bert])
    def test_unloading_gives_a_plain_model(self, build, bias):
        model = adapted(build(), bias=bias)
        unmerged = logits(model)
        plain = model.merge_and_unload(safe_merge=True)
        assert type(plain) is type(build())
        assert layers(plain) == {}
        assert plain.state_dict().keys() >= build().state_dict().keys()
        torch.testing.assert_close(logits(plain), unmerged, rtol=1e-5, atol=1e-5)

    def test_unloading_without_merging_gives_the_base(self):
        model = adapted()
        model.merge_adapter()
        model.unmerge_adapter()
        assert torch.equal(logits(model.unload()), logits(t5()))

    def test_merging_again_warns_and_changes_nothing(self):
        model = adapted()
        model.merge_adapter()
        merged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.warns(UserWarning, match="already merged"):
            model.merge_adapter()
        assert all(torch.equal(tensor, merged[name]) for name, tensor in model.state_dict().items())

    def test_unmerging_what_is_not_merged_changes_nothing(self):
        model = adapted()
        model.unmerge_adapter()
        assert torch.equal(logits(model), logits(adapted()))

    def test_adapters_merged_one_after_another_are_those_merged_at_once(self):
        model = scrambled(two_adapters(t5().to(torch.bfloat16)), "second", seed=2)
        model.merge_adapter(["default", "second"])
        at_once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.unmerge_adapter()
        model.merge_adapter(["default"])
        with pytest.warns(UserWarning, match="additionally merging second"):
            model.merge_adapter(["second"])
        assert all(torch.equal(tensor, at_once[name]) for name, tensor in model.state_dict().items())

    def test_a_merged_model_that_is_cast_unmerges_in_the_new_dtype(self):
        model = adapted()
        model.merge_adapter()
        model.double()
        model.unmerge_adapter()
        assert torch.equal(logits(model.unload()), logits(t5().double()))

    def test_a_merge_that_is_not_finite_is_refused_on_request(self):
        model = adapted(target_modules=["encoder.block.0.layer.1.DenseReluDense.wi"])
        (layer,) = layers(model).values()
        layer.tt_lora_delta["default"].linear.cores[1].data[0] = float("nan")
        before = layer.base_layer.weight.clone()
        with pytest.raises(MergeError, match=r"finite.*\['default'\]"):
            model.merge_adapter(safe_merge=True)
        assert torch.equal(layer.base_layer.weight, before)
        assert not layer.merged


class TestNonLinear:
    MERGES = pytest.mark.parametrize(
        "merge",
        [
            lambda model: model.merge_adapter(),
            lambda model: model.merge_and_unload(),
            lambda model: model.merge_adapter(["curved"]),
            lambda model: model.merge_adapter(["default", "curved"]),
        ],
        ids=["merge_adapter", "merge_and_unload", "by name", "both by name"],
    )

    @staticmethod
    def model() -> PeftModel:
        """A linear adapter on wi, which comes first, and a non-linear, active one on wo."""
        model = adapted(target_modules=["wi"])
        model.add_adapter("curved", TensorTrainConfig(rank=3, core_activation="gelu", target_modules=["wo"]))
        model.base_model.set_adapter(["default", "curved"])
        return scrambled(model, "curved", seed=2).eval()

    @MERGES
    def test_refuses_to_merge_by_a_sentence_before_anything_is_touched(self, merge):
        model = self.model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(MergeError, match=r"'curved'.*at encoder\.block\.0.*\.wo: .*core_activation=None"):
            merge(model)
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_does_not_keep_a_linear_one_beside_it_from_merging(self):
        model = self.model()
        model.merge_adapter(["default"])
        assert {path.rpartition(".")[2]: layer.merged for path, layer in layers(model).items()} == {
            "wi": True,
            "wo": False,
        }

    def test_a_layer_alone_refuses_too(self):
        layer = next(layer for layer in layers(self.model()).values() if "curved" in layer.tt_lora_delta)
        with pytest.raises(ValueError, match="core_activation='gelu'"):
            layer.merge()
        assert not layer.merged


def two_adapters(base: PreTrainedModel | None = None) -> PeftModel:
    """The adapters "default" and "second", of other rank and other targets in part."""
    model = adapted(base, target_modules=["wi", "q"])
    model.add_adapter("second", TensorTrainConfig(rank=2, d=3, target_modules=["wi", "wo"], bias="dense"))
    return scrambled(model, "second", seed=2).eval()


class TestSeveralAdapters:
    def test_adding_one_changes_nothing_until_it_is_set(self):
        alone = adapted(target_modules=["wi", "q"])
        model = two_adapters()
        assert torch.equal(logits(model), logits(alone))
        assert trainable(model) == trainable(alone)

    def test_the_one_that_is_set_acts_and_trains(self):
        model = two_adapters()
        model.set_adapter("second")
        alone = get_peft_model(t5(), TensorTrainConfig(rank=2, target_modules=["wi", "wo"], bias="dense")).eval()
        scrambled(alone, seed=2)
        assert torch.equal(logits(model), logits(alone))
        assert {name.replace(".second.", ".default.") for name in trainable(model)} == trainable(alone)

    def test_two_that_are_set_add_up(self):
        model = two_adapters()
        model.base_model.set_adapter(["default", "second"])
        both = logits(model)
        dense = t5()
        for path, layer in layers(model).items():
            linear = dense.get_submodule(path.removeprefix("base_model.model."))
            for name, delta in layer.tt_lora_delta.items():
                linear.weight.data += torch.from_numpy(dense_delta(layer, name)).float()
                if name == "second":
                    linear.bias = nn.Parameter(delta.linear.bias.detach().clone())
        torch.testing.assert_close(both, logits(dense), rtol=1e-5, atol=1e-5)

    @pytest.mark.filterwarnings(
        "ignore:Adapter default was active which is now deleted"
    )  # PEFT says what it switches to
    def test_deleting_the_active_one_leaves_the_other_in_its_place(self):
        model = two_adapters()
        model.set_adapter("second")
        second = logits(model)
        model.set_adapter("default")
        model.delete_adapter("default")
        assert list(model.peft_config) == ["second"]
        assert not any("default" in layer.tt_lora_delta for layer in layers(model).values())
        model.set_adapter("second")
        assert torch.equal(logits(model), second)

    def test_each_is_saved_in_its_own_folder(self, tmp_path):
        model = two_adapters()
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(t5(), tmp_path)
        loaded.load_adapter(tmp_path / "second", "second")
        for name in ("default", "second"):
            model.set_adapter(name)
            loaded.set_adapter(name)
            assert torch.equal(logits(loaded.eval()), logits(model))


class TestDisabling:
    @pytest.mark.parametrize("merge", [False, True], ids=["unmerged", "merged"])
    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    def test_a_disabled_adapter_leaves_the_base(self, bias, merge):
        model = adapted(bias=bias)
        active = logits(model)
        if merge:
            model.merge_adapter()
        with model.disable_adapter():
            assert torch.equal(logits(model), logits(t5()))
            assert trainable(model) == set()
        assert torch.equal(logits(model), active)

    def test_transformers_own_methods_switch_it(self, tmp_path):
        adapted().save_pretrained(tmp_path)
        model = t5()
        model.load_adapter(tmp_path)
        active = logits(model.eval())
        model.disable_adapters()
        assert torch.equal(logits(model), logits(t5()))
        model.enable_adapters()
        assert torch.equal(logits(model), active)
        model.delete_adapter("default")
        assert torch.equal(logits(model), logits(t5()))

    def test_transformers_own_add_adapter_starts_at_the_base(self):
        model = t5()
        model.add_adapter(TensorTrainConfig(rank=2), "fresh")
        assert torch.equal(logits(model), logits(t5()))
        assert all(".tt_lora_delta.fresh." in name for name in trainable(model))
        assert len(trainable(model)) == 3 * len(layers(model))


def test_one_contraction_serves_base_and_delta_unless_someone_watches_the_base(monkeypatch):
    layer = TensorTrainPeftLinear(nn.Linear(12, 8), "default", TensorTrainConfig(rank=2))
    nn.init.normal_(layer.tt_lora_delta["default"].linear.cores[-1])
    x, fused, seen = torch.randn(5, 12, requires_grad=True), [], []
    onto = TensorTrainLinear.onto
    monkeypatch.setattr(TensorTrainLinear, "onto", lambda self, *given: fused.append(self) or onto(self, *given))
    together = layer(x)
    assert len(fused) == 1
    layer.base_layer.register_full_backward_hook(lambda *_: seen.append(True))
    apart = layer(x)
    assert len(fused) == 1
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(together, layer.base_layer(x) + layer.tt_lora_delta["default"](x))
    apart.sum().backward()
    assert seen == [True]
