"""T5Config with one more field: the adapters of the model."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import T5Config as TransformersT5Config

from adapters import AdapterConfig

MODEL_TYPES = ("t5", "mt5")


@strict
class T5Config(TransformersT5Config):
    """transformers' T5Config plus ``adapters``.

    Args:
        adapters: what ``adapters.attach`` takes, an object with a key ``kind`` or a list of them, or None. In a saved
            model each entry is ``{"task": name or null, "config": {...}}``.

    Raises:
        adapters.ConfigurationError: an entry is not a valid adapter.
    """

    adapters: dict[str, Any] | list[dict[str, Any]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.attachments()
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, values: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, but an mT5 stays one: it never scales its decoder's outputs; T5 does if its head is tied.

        Raises:
            OSError: the values are those of another architecture.
        """
        model_type = values.get("model_type", "t5")
        if model_type not in MODEL_TYPES:
            raise OSError(
                f"A T5 is read from a config.json whose model_type is {' or '.join(MODEL_TYPES)}; got "
                f"{model_type!r}: name a checkpoint of T5, T5 v1.1, flan-T5 or mT5."
            )
        if model_type == "mt5":
            values = {**values, "tie_word_embeddings": False}
        return super().from_dict(values, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; the configuration of a T5 without adapters is that of a plain one."""
        values = super().to_dict()
        return values if self.adapters else {key: value for key, value in values.items() if key != "adapters"}

    def attachments(self) -> list[tuple[str | None, AdapterConfig]]:
        """The adapters as pairs of a task (None: all tasks) and a configuration."""
        entries = self.adapters or []
        pairs = []
        for entry in entries if isinstance(entries, list) else [entries]:
            by_task = set(entry) == {"task", "config"}
            config = entry["config"] if by_task else entry
            pairs.append((entry["task"] if by_task else None, AdapterConfig.from_dict(config)))
        return pairs
