"""The positions of a model: how many tokens it reads at once."""

from torch import nn

from adapters import ConfigurationError


def check_positions(model: nn.Module, tokens: int, key: str) -> None:
    """Refuse more tokens than the model has positions for.

    A table of positions with a padding row, such as RoBERTa's, counts from the row after it.

    Args:
        model: of transformers, with or without adapters.
        tokens: the most that it reads at once.
        key: the key that gives them, for the message; or several, whose sum they are.

    Raises:
        ConfigurationError: they are too many.
    """
    longest = getattr(model.config, "max_position_embeddings", None) or -1  # -1 for no limit, as in XLNet
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            longest = module.num_embeddings - module.padding_idx - 1
    if 0 < longest < tokens:
        raise ConfigurationError(
            f"Key {key} must be at most {longest}, the positions of the model; got {tokens}: lower it."
        )
