"""Rows as token ids: a prompt that ends where the answer begins, and the answer, ended by the end-of-sequence token.

    template "{source}\\nAnswer: {target}"        "is it red ?\\nAnswer:" + " yes" + <end>
    chat template of the tokenizer               "<|user|>is it red ?<|assistant|>" + "yes" + <end>

A space before the answer belongs to the answer, as byte-level vocabularies have it. An answer has the same tokens after
each prompt, so that training, likelihoods and generation see the same.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.tasks.files import list_rows
from third_party.trainers import IGNORED_LABEL

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "{source}\nAnswer: {target}"
"""For tokenizers without a chat template."""


@dataclass(frozen=True)
class Encoder:
    """Makes token ids of sources and targets.

    Args:
        tokenizer: it has an end-of-sequence token.
        template: with {source} and, at its end, {target}; None for the tokenizer's chat template, or the default.
        max_source_length: limit on the tokens of a prompt; the source is shortened to it.
        max_target_length: limit on the tokens of an answer, its end included.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str | None
    max_source_length: int
    max_target_length: int

    @property
    def is_chat(self) -> bool:
        """Whether prompts are made by the tokenizer's chat template."""
        return self.template is None and bool(self.tokenizer.chat_template)

    def prompt_text(self, source: str) -> str:
        """The text before the answer, without a space at its end."""
        if self.is_chat:
            messages = [{"role": "user", "content": source}]
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before = (self.template or DEFAULT_TEMPLATE).removesuffix("{target}")
        return before.rstrip(" ").replace("{source}", source)

    @property
    def joint(self) -> str:
        """The space between prompt and answer, if there is one."""
        before = "" if self.is_chat else (self.template or DEFAULT_TEMPLATE).removesuffix("{target}")
        return before[len(before.rstrip(" ")) :]

    def prompts(self, sources: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """The token ids of each prompt, and the indices of the sources that were shortened."""
        found = self._ids([self.prompt_text(source) for source in sources])
        long = [index for index, ids in enumerate(found) if len(ids) > self.max_source_length]
        for index in long:
            found[index] = self._shortened(sources[index], len(found[index]))
        return found, long

    def _shortened(self, source: str, length: int) -> list[int]:
        """The prompt of the longest beginning of a source that fits, to within a few tokens."""
        offsets = self.tokenizer(source, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        keep = len(offsets) - (length - self.max_source_length)
        while keep > 0:
            (ids,) = self._ids([self.prompt_text(source[: offsets[keep - 1][1]])])
            if len(ids) <= self.max_source_length:
                return ids
            keep -= len(ids) - self.max_source_length
        overhead = len(self._ids([self.prompt_text("")])[0])
        raise ConfigurationError(
            "Key 'max_source_length' must leave room for the source beside the template's own tokens; got "
            f"{self.max_source_length}, and the template alone has {overhead}: raise it."
        )

    def answer(self, target: str) -> list[int]:
        """The token ids of an answer, its end included, cut to ``max_target_length``."""
        return [*self.whole_answer(target)[: self.max_target_length - 1], self.tokenizer.eos_token_id]

    @functools.cache  # noqa: B019 - an encoder lives as long as its data
    def whole_answer(self, target: str) -> list[int]:
        """The token ids of an answer without its end."""
        start = self.prompt_text("")
        before, whole = self._ids([start, f"{start}{self.joint}{target}"])
        if whole[: len(before)] == before:
            return whole[len(before) :]
        # the tokenizer merges the end of the prompt with the answer
        return self.tokenizer(self.joint + target, add_special_tokens=False, verbose=False)["input_ids"]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=not self.is_chat, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [ids[:-1] if len(ids) > 1 and ids[-1] == end and not self.is_chat else ids for ids in found]

    def rows(self, dataset: Dataset, name: str = "the split") -> Dataset:
        """The rows of a split: ``input_ids``, and ``labels`` that are -100 in the prompt.

        Args:
            dataset: the columns ``source`` and ``target``, and ``row`` if warnings shall name rows of the file.
            name: what warnings call the split.
        """
        prompts, long = self.prompts(dataset["source"][:])
        answers = [self.answer(target) for target in dataset["target"][:]]
        numbers = np.asarray(dataset["row"][:] if "row" in dataset.column_names else range(1, len(dataset) + 1))
        targets = enumerate(dataset["target"][:])
        cut = [index for index, target in targets if len(self.whole_answer(target)) >= self.max_target_length]
        for column, rows in (("source", long), ("target", cut)):
            if rows:
                length = getattr(self, f"max_{column}_length")
                logger.warning(
                    "%s: %d of %d %ss are cut to %d tokens, max_%s_length (%s).",
                    *(name, len(rows), len(dataset), column, length, column, list_rows(numbers[rows])),
                )
        pairs = list(zip(prompts, answers, strict=True))
        return Dataset.from_dict(
            {
                "input_ids": [prompt + answer for prompt, answer in pairs],
                "labels": [[IGNORED_LABEL] * len(prompt) + answer for prompt, answer in pairs],
            }
        )

    def decode(self, ids: np.ndarray) -> list[str]:
        """The texts of continuations, padded with -100, up to their end."""
        ids = np.where(ids < 0, self.tokenizer.pad_token_id, ids)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]


def prompt_of(row: dict[str, list[int]]) -> list[int]:
    """The tokens of a row before its answer."""
    return row["input_ids"][: row["labels"].count(IGNORED_LABEL)]
