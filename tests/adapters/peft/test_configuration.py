"""The fields, their file, and what is refused."""

import json

import pytest
from peft import PeftConfig

from adapters import ConfigurationError, TensorTrainLoRAConfig
from adapters.peft import TensorTrainConfig

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
