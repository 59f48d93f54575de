"""The fields, their file, and what is refused."""

import json
from dataclasses import fields

import pytest
from peft import PeftConfig, get_peft_model

from adapters import ConfigurationError, TensorTrainLoRAConfig
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import layers, llama

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TestConfig:
    FIELDS = {  # noqa: RUF012 - a constant of the tests
        "raw_shape": [[2, 3, 4], [2, 2, 4]],
        "rank": [2, 3],
        "init": 0.25,
        "frozen_cores": [-1],
        "disabled_cores": [0],
        "core_activation": "gelu",
        "delta_bias": "tt",
        "scaling": 2,
        "dropout": 0.1,
    }

    def test_same_fields_as_the_native_kind_give_an_equal_configuration(self):
        assert TensorTrainConfig(**self.FIELDS).to_adapter_config() == TensorTrainLoRAConfig(**self.FIELDS)
        assert TensorTrainConfig().to_adapter_config() == TensorTrainLoRAConfig()
        chosen = {"d": 2, "shape_mode": "mixed"}
        assert TensorTrainConfig(**chosen).to_adapter_config() == TensorTrainLoRAConfig(**chosen)

    def test_fields_are_those_of_the_native_kind_but_for_the_target_modules(self):
        of_tuner = {field.name: field for field in fields(TensorTrainConfig)}
        of_peft = {field.name for field in fields(PeftConfig)}
        of_kind = {field.name: field for field in fields(TensorTrainLoRAConfig)}
        only_in_tuner = {"exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"}
        only_in_tuner |= {"bias", "init_weights", "target_parameters", "delta_dtype"}
        only_in_kind = {"stacks", "layers", "sublayers", "loops"}
        assert of_tuner.keys() - of_peft == (of_kind.keys() - only_in_kind) | only_in_tuner
        for name in of_kind.keys() - only_in_kind:
            assert of_tuner[name].default == of_kind[name].default, name

    def test_fields_are_validated_once_for_all_linears(self, monkeypatch):
        validated, check = [], TensorTrainLoRAConfig.__post_init__
        monkeypatch.setattr(TensorTrainLoRAConfig, "__post_init__", lambda self: validated.append(self) or check(self))
        config = TensorTrainConfig(rank=2, target_modules=["q_proj", "v_proj"])
        validated.clear()
        assert len(layers(get_peft_model(llama(), config))) == 4
        assert len(validated) <= 2  # as given, and with the numbers of "auto"

    def test_a_field_set_later_is_validated_and_used(self):
        config = TensorTrainConfig(rank=2)
        config.rank = 3
        assert config.to_adapter_config().rank == 3
        config.rank = 0
        with pytest.raises(ConfigurationError, match="Key 'rank'"):
            config.to_adapter_config()

    def test_values_are_normalised(self):
        config = TensorTrainConfig(raw_shape=((4, 4), (2, 8)), frozen_cores=(-1,))
        assert (config.raw_shape, config.d, config.frozen_cores) == ([[4, 4], [2, 8]], 2, [1])

    def test_configuration_round_trips_through_its_file(self, tmp_path):
        config = TensorTrainConfig(**self.FIELDS, target_modules={"q", "wi"}, layers_to_transform=[0, 1])
        config.save_pretrained(tmp_path)
        loaded = PeftConfig.from_pretrained(tmp_path)
        assert type(loaded) is TensorTrainConfig
        assert loaded.to_dict() == config.to_dict()

    @pytest.mark.parametrize("names", [list, set], ids=["list", "set"])
    def test_sets_are_written_sorted(self, names, tmp_path):
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
            ("bias", "lora_only"),
            ("delta_bias", "all"),
            ("scaling", "1"),
            ("dropout", 1.0),
            ("loops", "all"),
            ("modes", ["in", "loop", "out"]),
        ],
    )
    def test_invalid_value_raises_with_the_name_of_its_key(self, key, value):
        with pytest.raises(ConfigurationError, match=f"Key '{key}'"):
            TensorTrainConfig(**{key: value})
