"""Names of other libraries lead to the kinds that are meant."""

import json

import pytest

from adapters import AdapterConfig, ConfigurationError
from adapters.kind_names import OTHER_NAMES


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lora", '"peft:LORA"'),
        ("LoRA", '"peft:LORA"'),
        ("ia3", '"peft:IA3"'),
        ("lokr", '"peft:LOKR"'),
        ("ln-tuning", '"layer_norm"'),
        ("DoRA", '"peft:LORA" with "use_dora": true'),
        ("TT-LoRA", '"tt_lora"'),
        ("BitFit", '"bitfit"'),
        ("Houlsby", '"bottleneck"'),
        ("prefix-tuning", '"prompt"'),
        ("full", '"none"'),
    ],
)
def test_another_name_suggests_the_kind_that_is_meant(name, meant):
    pytest.importorskip("peft")
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict({"kind": name})
    assert f"got {name!r}: did you mean {meant}? Known are bitfit, " in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"), [("tt_lra", "did you mean 'tt_lora'?"), ("zzz", "got 'zzz': known are bitfit")]
)
def test_any_other_name_suggests_the_nearest_one_if_there_is_any(name, hint):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict({"kind": name})
    assert hint in str(error.value)


@pytest.mark.parametrize("meant", sorted(set(OTHER_NAMES.values())))
def test_what_is_suggested_can_be_written(meant):
    pytest.importorskip("peft")
    kind, _, rest = meant.partition(" with ")
    values = json.loads(f'{{"kind": {kind}{", " if rest else ""}{rest}}}')
    assert AdapterConfig.from_dict(values).kind == values["kind"]
