"""The JSON keys of the workload ``swipe``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from adapters import AdapterConfig
from adapters.validation import check_keys, refuse
from seq2seq import SPLITS
from seq2seq.errors import refusing
from seq2seq.swipe.augmentation import Augmentation
from seq2seq.swipe.decoding.options import Decoding
from seq2seq.swipe.keyboards.layout import Layout, load_layout
from seq2seq.swipe.lexicon.source import LexiconSource
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.traces.filters import Limits
from seq2seq.tasks.data_names import data_set_name
from seq2seq.tasks.keys import located
from seq2seq.workload import Workload
from third_party.models.swipe import SwipeConfig, SwipeForConditionalGeneration, SwipeForCTC

ARCHITECTURES = {"ctc": SwipeForCTC, "encoder_decoder": SwipeForConditionalGeneration}
MODEL_KEYS = (
    *("features", "rate", "encoder", "kernel_size"),
    *("d_model", "num_layers", "num_decoder_layers", "num_heads", "d_ff", "dropout_rate"),
)
"""Options of ``SwipeConfig`` that a run may set; alphabet and layout follow from its layouts."""

MODES = ("greedy", "beam", "greedy_lexicon", "beam_lexicon")
"""Ways to decode, the best last, whose metrics have no suffix."""

MODE_METRICS = (
    *(f"milliseconds_{mode}" for mode in MODES),
    *(f"{name}_{mode}" for mode in MODES[:-1] for name in ("accuracy_1", "swipe_mrr")),
)
"""Metrics by way to decode, which a run's table has in rows of their own."""

MEMORY_METRICS = ("model_bytes", "lexicon_bytes", "lexicon_words", "resident_growth_bytes")
"""What ``seq2seq.swipe.memory`` measures."""


@dataclass(frozen=True, kw_only=True)
class SwipeKeys(Workload):
    """The fields are the keys.

    Args:
        model_name_or_path: the folder of a saved swipe model; None for random weights, of which everything trains.
        architecture: an encoder with CTC, or an encoder and a decoder.
        model: options of ``third_party.models.swipe.SwipeConfig``: features, encoder and sizes; the rate, too.
        layout: the keyboard, a name or a file; a list of them for traces on several.
        adapters_per_layout: whether each layout has adapters of its own, beside one frozen model.
        lexicon: the words, see ``LexiconSource``; None for the 20,000 most frequent ones of the layout's language.
        train_file, validation_file, test_file: traces, see ``seq2seq.swipe.traces.reading``; a split without a file has
            synthetic ones.
            A folder that ``seq2seq.swipe.traces.store`` wrote is read without loading it into memory.
        traces_file: one file or folder for all splits, whose words are divided over them, see ``seq2seq.swipe.rows``.
        limits: of good swipes, see ``seq2seq.swipe.traces.filters``; training leaves out the others. None for all.
        synthetic_traces: of a training epoch, each drawn anew.
        evaluation_traces: synthetic ones of validation and of test, each.
        random_layouts: whether each batch of synthetic training traces is drawn on a layout of its own, on which
            letters are dealt at random.
        augmentation: of training traces, see ``seq2seq.swipe.augmentation``.
        decoding: how words are found, see ``seq2seq.swipe.decoding.options``.
        memory_words: the words of a lexicon of the layout's language, with which the resident memory of a fresh process
            is measured on the test split, see ``seq2seq.swipe.memory``; None to leave it out.
    """

    name = "swipe"
    file_keys: ClassVar[Mapping[str, str]] = {split: f"{split}_file" for split in SPLITS}
    paths = ("model_name_or_path", "traces_file", *file_keys.values())
    flags = ("average_metrics", "language_weight", *MODE_METRICS, *MEMORY_METRICS)
    smaller_is_better = ("character_error_rate",)
    untuned_name = "all weights"
    other_names: ClassVar[Mapping[str, str]] = {"layouts": "layout", "keyboard": "layout", "features": "model.features"}
    reserved_arguments: ClassVar[Mapping[str, str]] = {
        "label_smoothing_factor": "no loss is smoothed",
        "train_sampling_strategy": "traces of training are drawn in batches",
    }
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "synthetic_traces": (1, 1e10),
        "evaluation_traces": (2, 1e7),
        "memory_words": (2, 2**24 - 1),
    }

    model_name_or_path: str | None = None
    architecture: Literal["ctc", "encoder_decoder"] = "ctc"
    model: dict[str, Any] = field(default_factory=dict, hash=False)
    layout: str | tuple[str, ...] = "qwerty"
    adapters_per_layout: bool = False
    lexicon: LexiconSource | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    traces_file: str | None = None
    synthetic_traces: int = 64000
    evaluation_traces: int = 1000
    random_layouts: bool = False
    augmentation: Augmentation | None = None
    limits: Limits | None = None
    decoding: Decoding | None = None
    memory_words: int | None = None

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """The layouts by name.

        Raises:
            ConfigurationError: one cannot be loaded, or two have the same name.
        """
        names = (self.layout,) if isinstance(self.layout, str) else self.layout
        found = []
        for name in names:
            with refusing("layout", name):
                found.append(load_layout(located(name)))
        by_name = {layout.name: layout for layout in found}
        if len(by_name) < len(found):
            repeated = next(layout.name for layout in found if by_name[layout.name] is not layout)
            refuse("layout", "names layouts of distinct names", f"another {repeated!r}", "rename one", "the run")
        return by_name

    @property
    def options(self) -> Decoding:
        """How words are found."""
        return self.decoding or Decoding()

    @cached_property
    def words(self) -> dict[str, Lexicon]:
        """The words that can be typed, by layout."""
        return {name: self.source.load(layout) for name, layout in self.layouts.items()}

    @property
    def source(self) -> LexiconSource:
        """Where the words come from."""
        return self.lexicon or LexiconSource()

    @property
    def lexicon_label(self) -> str:
        """The name of the lexicon: its file's, or its languages'."""
        if self.source.file is not None:
            return Path(self.source.file).name
        return self.source.language or "+".join(sorted({layout.language for layout in self.layouts.values()}))

    @cached_property
    def config(self) -> SwipeConfig:
        """The configuration of the model, whose alphabet is that of all layouts.

        That of a saved one stays as it is if it has all these letters.
        """
        alphabet = "".join(sorted(set("".join(layout.alphabet for layout in self.layouts.values()))))
        layout = next(iter(self.layouts))
        if self.model_name_or_path is None:
            return SwipeConfig(**self.model, alphabet=alphabet, layout=layout)
        if self.new_letters:
            return SwipeConfig(**{**self.saved_config.to_dict(), "alphabet": alphabet, "layout": layout})
        return self.saved_config

    @cached_property
    def saved_config(self) -> SwipeConfig:
        """The configuration of the saved model that a run starts from."""
        folder = located(self.model_name_or_path)
        with refusing("model_name_or_path", folder):
            values, _ = SwipeConfig.get_config_dict(folder, local_files_only=True)
        if values.get("model_type") != SwipeConfig.model_type:
            given = f"{folder}, of type {values.get('model_type')!r}"
            refuse("model_name_or_path", "is the folder of a saved swipe model", given, "choose another", "the run")
        return SwipeConfig.from_dict(values)

    @property
    def saved_model_exists(self) -> bool:
        """Whether the saved model is there already; the run that a configuration goes on from may be yet to come."""
        return self.model_name_or_path is not None and Path(located(self.model_name_or_path)).is_dir()

    @property
    def new_letters(self) -> list[str]:
        """Letters of the layouts that the saved model does not know."""
        if self.model_name_or_path is None:
            return []
        known = {*self.saved_config.alphabet}
        return sorted({letter for layout in self.layouts.values() for letter in layout.alphabet} - known)

    @property
    def model_class(self) -> type[SwipeForCTC] | type[SwipeForConditionalGeneration]:
        """The class of the model."""
        return ARCHITECTURES[self.architecture]

    @property
    def files(self) -> dict[str, str]:
        """Your own files by split."""
        given = {split: self.traces_file or getattr(self, key) for split, key in self.file_keys.items()}
        return {split: path for split, path in given.items() if path is not None}

    @property
    def split_keys(self) -> Mapping[str, str]:
        return self.file_keys if self.traces_file is None else dict.fromkeys(SPLITS, "traces_file")

    @property
    def task_label(self) -> str:
        """The layouts, and the name of the file that results are measured on."""
        layouts = " + ".join(self.layouts)
        return f"{layouts}, {data_set_name(self.files['test']) if 'test' in self.files else 'synthetic'}"

    @property
    def model_label(self) -> str:
        return self.model_name_or_path or f"swipe {self.architecture.replace('_', '-')}"

    @property
    def metric_names(self) -> Collection[str]:
        return ("swipe_mrr", "mrr", "accuracy_1", "accuracy_3", "accuracy_4", "character_error_rate", "average_metrics")

    @classmethod
    def average_name(cls, metrics: Collection[str]) -> str:
        return "swipe MRR"

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        if self.model_name_or_path is not None and self.model:
            rule = "is that of the saved model"
            refuse("model", rule, repr(self.model), "leave out it or model_name_or_path", "the run")
        check_keys(self.model, MODEL_KEYS, "the model")
        self.check_architecture()
        given = [key for key in self.file_keys.values() if getattr(self, key) is not None]
        if self.traces_file is not None and given:
            refuse("traces_file", "is the file of all splits", f"also {', '.join(given)}", "leave one out", "the run")
        if self.adapters_per_layout and "train" in self.files:
            rule, fix = "needs batches of one layout, which synthetic traces have", "start a run for each layout"
            refuse("adapters_per_layout", rule, repr(self.files["train"]), fix, "the run")
        if self.random_layouts and "train" in self.files:
            refuse(
                "random_layouts", "is one of synthetic traces", repr(self.files["train"]), "leave one out", "the run"
            )
        if self.limits is not None and "train" not in self.files:
            rule = "are of traces of a file in training; synthetic ones are good swipes"
            refuse("limits", rule, "no train_file or traces_file", "leave it out, or give one", "the run")
        trains_rows = not configs or {config.kind for config in configs} & {"none", "weights"}
        if not trains_rows and self.saved_model_exists and self.new_letters:
            rule = f"trains the rows of letters that the saved model does not know, {''.join(self.new_letters)!r}"
            parameters = '["read_in.linear.weight", "head.weight", "head.bias"]'
            fix = f'add {{"kind": "weights", "target_parameters": {parameters}}}'
            refuse("adapter", rule, ", ".join(config.kind for config in configs), fix, "the run")
        self.check_decoding()
        self.words  # noqa: B018 - refuses a lexicon without words

    def check_architecture(self) -> None:
        """Refuse a saved model of the other architecture, of which a part would be random."""
        names = {kind.__name__: name for name, kind in ARCHITECTURES.items()}
        saved = self.saved_config.architectures or [] if self.saved_model_exists else []
        other = next((names[each] for each in saved if names.get(each, self.architecture) != self.architecture), None)
        if other is not None:
            rule = f"is that of the saved model, {other!r}"
            refuse("architecture", rule, repr(self.architecture), f"write {other!r}", "the run")

    def check_decoding(self) -> None:
        """Refuse what belongs to the other architecture."""
        belongs = {"threshold": "ctc", "exact": "ctc", "in_training": "encoder_decoder"}
        for key, architecture in belongs.items():
            if getattr(self.options, key) and self.architecture != architecture:
                rule = f"belongs to the architecture {architecture!r}"
                refuse(key, rule, repr(self.architecture), "leave it out", "the decoding")
        if self.options.in_training and len(self.layouts) > 1:
            refuse("in_training", "needs one layout", ", ".join(self.layouts), "leave it out", "the decoding")
