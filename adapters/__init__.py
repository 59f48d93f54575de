"""Tensorized adapters: small trainable tensor networks inside a frozen transformer.

Attach, train, evaluate, save:

    import adapters
    adapters.attach(model, {"kind": "tt_lora", "rank": 4})     inject, freeze, return the same model
    print(adapters.summary(model))                             trainable parameters by group and layer
    with adapters.merged(model): ...                           evaluate at the cost of the base model
    adapters.save(model, "out"); adapters.load(base, "out")    adapter tensors only
    adapters.merge_and_unload(model)                           a plain model of transformers, for save_pretrained
"""

from adapters.acting import check_acts
from adapters.active_task import set_active_task
from adapters.adaptive_ranks import RankChange, RankReport, RankSchedule, adapt_ranks, fit_ranks, orthogonalize
from adapters.algebra import Approximation, ApproximationReport, Comparison, Deltas, combine, compare
from adapters.base.adapted_input import AdaptedInput
from adapters.base.adapted_layer_norm import AdaptedLayerNorm
from adapters.base.adapted_linear import AdaptedLinear
from adapters.base.controller import AdapterController
from adapters.base.kept_base import MergeError
from adapters.base.linear_delta import LinearDelta
from adapters.calibration import calibrate_scaling
from adapters.configuration import AdapterConfig
from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import FactorizedLinear
from adapters.factorized.moments import Moments
from adapters.factorized.replacement import Factorization, densify, factorize, input_moments, plan_factorization
from adapters.factorized.report import FactorizationReport, WeightReport
from adapters.freezing import FreezingReport, freeze, freezing_report
from adapters.injection import Attachment, as_configs, attach, attachments
from adapters.kinds.bitfit import Bias, BitFitConfig
from adapters.kinds.bottleneck import (
    Bottleneck,
    BottleneckConfig,
    LowRankConfig,
    TensorTrainAdapter,
    TensorTrainAdapterConfig,
)
from adapters.kinds.compacter import CompacterConfig, HypercomplexConfig
from adapters.kinds.intrinsic import IntrinsicDelta, IntrinsicSaidConfig
from adapters.kinds.layer_norm import (
    LayerNormConfig,
    ScaleNorm,
    ScaleNormConfig,
    TensorTrainLayerNorm,
    TensorTrainLayerNormConfig,
)
from adapters.kinds.linear_forms import DenseLinear, HypercomplexLinear
from adapters.kinds.of_peft.kind import PeftKindConfig
from adapters.kinds.own_weights import FactorsConfig, WeightsConfig
from adapters.kinds.prompt import Prompt, PromptConfig
from adapters.kinds.tensor_train import (
    TensorTrainDelta,
    TensorTrainLoRAConfig,
    TensorTrainSingle,
    TensorTrainSingleConfig,
)
from adapters.kinds.whole_model import FullFineTuningConfig, LMHeadConfig
from adapters.learning_rates import parameter_groups
from adapters.merging import adapted_modules, is_merged, merge, merged, unmerge, unmergeable
from adapters.name_clash import warn_of_other_package
from adapters.saved.checkpoint import load, save
from adapters.saved.folder import WEIGHTS_NAME, CheckpointError
from adapters.saved.state import adapter_state_dict
from adapters.summary import Summary, summary
from adapters.tensor_train.parameter_counts import Sizes
from adapters.tensor_train.published import PUBLISHED, PublishedMethod, published
from adapters.unloading import merge_and_unload
from adapters.validation import ConfigurationError
from t3nsor.version import __version__

warn_of_other_package()

__all__ = [
    "PUBLISHED",
    "WEIGHTS_NAME",
    "AdaptedInput",
    "AdaptedLayerNorm",
    "AdaptedLinear",
    "AdapterConfig",
    "AdapterController",
    "Approximation",
    "ApproximationReport",
    "Attachment",
    "Bias",
    "BitFitConfig",
    "Bottleneck",
    "BottleneckConfig",
    "CheckpointError",
    "CompacterConfig",
    "Comparison",
    "ConfigurationError",
    "Deltas",
    "DenseLinear",
    "Factorization",
    "FactorizationReport",
    "FactorizedConfig",
    "FactorizedLinear",
    "FactorsConfig",
    "FreezingReport",
    "FullFineTuningConfig",
    "HypercomplexConfig",
    "HypercomplexLinear",
    "IntrinsicDelta",
    "IntrinsicSaidConfig",
    "LMHeadConfig",
    "LayerNormConfig",
    "LinearDelta",
    "LowRankConfig",
    "MergeError",
    "Moments",
    "PeftKindConfig",
    "Prompt",
    "PromptConfig",
    "PublishedMethod",
    "RankChange",
    "RankReport",
    "RankSchedule",
    "ScaleNorm",
    "ScaleNormConfig",
    "Sizes",
    "Summary",
    "TensorTrainAdapter",
    "TensorTrainAdapterConfig",
    "TensorTrainDelta",
    "TensorTrainLayerNorm",
    "TensorTrainLayerNormConfig",
    "TensorTrainLoRAConfig",
    "TensorTrainSingle",
    "TensorTrainSingleConfig",
    "WeightReport",
    "WeightsConfig",
    "__version__",
    "adapt_ranks",
    "adapted_modules",
    "adapter_state_dict",
    "as_configs",
    "attach",
    "attachments",
    "calibrate_scaling",
    "check_acts",
    "combine",
    "compare",
    "densify",
    "factorize",
    "fit_ranks",
    "freeze",
    "freezing_report",
    "input_moments",
    "is_merged",
    "load",
    "merge",
    "merge_and_unload",
    "merged",
    "orthogonalize",
    "parameter_groups",
    "plan_factorization",
    "published",
    "save",
    "set_active_task",
    "summary",
    "unmerge",
    "unmergeable",
]
