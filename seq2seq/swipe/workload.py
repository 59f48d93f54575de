"""The workload ``swipe``: from a finger trace on a keyboard to a word.

keyboards/    layouts                           keys          the JSON keys
lexicon/      words, and the trie of them       data          traces of a run, as batches
traces/       reading, drawing, filtering       trainer       training, and decoding of a split
decoding/     beams, lexicon, baselines         baselines     templates and nearest keys
metrics       from predictions                  predictions   files of them; evaluate, aggregate: commands
serve/        a page to swipe on                plots         of a run's page
export/       ONNX for devices                  memory        of a process that loads a model and a lexicon
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from adapters import ConfigurationError
from adapters.validation import refuse
from seq2seq.errors import refusing
from seq2seq.run_folder import RunFolder
from seq2seq.swipe.baselines import swipe_baselines
from seq2seq.swipe.data import SwipeData, load_swipes
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.keys import MODES, SwipeKeys
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.memory import measured_memory, memory_rows
from seq2seq.swipe.metrics import scores
from seq2seq.swipe.plots import PLOT, STATISTICS, draw_statistics, draw_traces
from seq2seq.swipe.rows import Rows, load_rows, rows_to_predict
from seq2seq.swipe.trainer import DEFAULT_WEIGHT, MAIN_MODE, SwipeTrainer
from seq2seq.tasks.keys import located
from seq2seq.workload import Baseline, Evaluation, Prepared
from third_party.models.swipe.alphabets import with_alphabet

logger = logging.getLogger(__name__)

SAMPLES = 8
LABELS = {"greedy": "greedy", "beam": "beam", "greedy_lexicon": "greedy, lexicon", "beam_lexicon": "beam, lexicon"}


@dataclass(frozen=True, kw_only=True)
class SwipeWorkload(SwipeKeys):
    """From a finger trace to a word.

    ``SwipeKeys`` has the keys.
    """

    def of_run(self, adapter: Path) -> Self:
        """With the language weight that the run chose on its validation split."""
        weight = self.options.language_weight
        metrics = RunFolder(adapter.parent).metrics
        if weight is None and metrics.is_file():
            found = json.loads(metrics.read_text(encoding="utf-8"))["metrics"].values()
            weight = next((scored["language_weight"] for scored in found if "language_weight" in scored), None)
        weight = DEFAULT_WEIGHT if weight is None else weight
        return replace(self, decoding=replace(self.options, language_weight=weight))

    def training_arguments(self) -> dict[str, Any]:
        unused = {"ddp_find_unused_parameters": True} if self.adapters_per_layout else {}  # a step trains one layout's
        return {"remove_unused_columns": False, "label_names": ["labels"], **unused}

    @property
    def adapter_tasks(self) -> Sequence[str | None]:
        return tuple(self.layouts) if self.adapters_per_layout else (None,)

    def load_data(self, arguments: TrainingArguments) -> SwipeData:
        return load_swipes(self, arguments.seed)

    def load_file(self, path: Path, task: str | None, arguments: TrainingArguments) -> SwipeData:
        if task is not None:
            refuse("--task", "is for runs of several tasks", repr(task), "leave it out; rows name layouts", "the run")
        return SwipeData(self, arguments.seed, {"test": rows_to_predict(self, path)})

    def load_model(self, random: bool = False) -> nn.Module:
        if self.model_name_or_path is None or random:
            return self.model_class(self.config)
        with refusing("model_name_or_path", self.model_name_or_path):
            model = self.model_class.from_pretrained(located(self.model_name_or_path), local_files_only=True)
        return with_alphabet(model, self.config.alphabet) if self.new_letters else model

    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> SwipeTrainer:
        data: SwipeData = prepared.data
        return SwipeTrainer(
            model=prepared.model,
            args=prepared.arguments,
            train_dataset=data.training_rows,
            eval_dataset=data.rows("validation") if "validation" in data.fixed else None,
            data_collator=data.collate,
            data=data,
            tries=self.make_tries(),
            task_names=tuple(self.layouts) if self.adapters_per_layout else (),
            callbacks=list(callbacks),
        )

    def make_tries(self) -> dict[str, PackedTrie]:
        """The words by layout."""
        return {name: PackedTrie.build(lexicon, self.config.alphabet) for name, lexicon in self.words.items()}

    def evaluate(self, prepared: Prepared, trainer: SwipeTrainer, split: str) -> Evaluation:
        weight = trainer.tuned_weight()
        output = trainer.predicted(split) if trainer.is_ctc else None
        scored = all(prepared.data.fixed[split].words)  # those of a file to predict may be unknown
        metrics: dict[str, float] = {}
        for mode in MODES if scored else (MAIN_MODE,):
            decoded = trainer.decoded(split, mode, weight, output)
            rows = trainer.prediction_rows(split, decoded.candidates)
            if scored:
                metrics |= {**mode_metrics(mode, scores(rows)), f"milliseconds_{mode}": decoded.milliseconds}
        if scored:
            metrics |= {"average_metrics": metrics["swipe_mrr"], "language_weight": weight}
        if split == "test" and scored and self.memory_words is not None and prepared.is_main_process:
            metrics |= self.memory(prepared.data.fixed[split], weight)
        return Evaluation(metrics, {"": rows})

    def memory(self, rows: Rows, weight: float) -> dict[str, int]:
        """What a model of these sizes takes; nothing, with a warning, if it cannot be measured."""
        with torch.random.fork_rng():
            keys = replace(self, decoding=replace(self.options, language_weight=weight))
            run = FinishedRun(keys, self.load_model(random=True).eval())
        try:
            return measured_memory(run, rows, self.memory_words)
        except ConfigurationError as error:
            logger.warning("Memory was not measured: %s", error)
            return {}

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        split = "validation" if "validation" in prepared.data.fixed else "test"
        names = prepared.data.fixed[split].layouts
        first = {layout: [n for n, name in enumerate(names) if name == layout][:SAMPLES] for layout in self.layouts}
        return {layout: prepared.data.rows(split).select(found) for layout, found in first.items() if found}

    def baselines(self) -> Mapping[str, Baseline]:
        return swipe_baselines()

    def table_rows(self, result: Mapping[str, Any]) -> list[list[str]]:
        """Accuracy and swipe MRR of each way to decode, and memory if it was measured."""
        rows = []
        for split, metrics in result["metrics"].items():
            for mode, label in LABELS.items():
                suffix = "" if mode == MAIN_MODE else f"_{mode}"
                cells = [metrics.get(f"{name}{suffix}") for name in ("accuracy_1", "swipe_mrr")]
                if None not in cells:
                    speed = metrics[f"milliseconds_{mode}"]
                    value = f"top-1 {cells[0]:.4f}, swipe MRR {cells[1]:.4f}, {speed:.1f} ms a word"
                    rows.append([f"{split} {label}", value])
            if "resident_growth_bytes" in metrics:
                rows += [[f"memory, {label}", f"{size} MiB"] for label, size in memory_rows(metrics)]
        return rows

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        splits = load_rows(self)
        section = ""
        if draw_traces(directory, self, splits):
            section = f"![traces and their predictions]({PLOT})\n\nTraces, true word, and the first candidates.\n\n"
        far = draw_statistics(directory / STATISTICS, self, splits)
        words = "; ".join(f"{label}: {', '.join(found)}" for label, found in far.items() if found)
        return f"{section}![statistics of the traces]({STATISTICS})\n\nFar outliers: {words or 'none'}.\n\n"


def mode_metrics(mode: str, found: Mapping[str, float]) -> dict[str, float]:
    """All metrics of the main way to decode, and some of the others, under their names."""
    if mode == MAIN_MODE:
        return dict(found)
    return {f"{name}_{mode}": found[name] for name in ("accuracy_1", "swipe_mrr")}
