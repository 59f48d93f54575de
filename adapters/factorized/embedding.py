"""The embedding of the tokens as a network, which a tied output projection computes with too.

    E (tokens, n)      rows looked up at the input, and at the output the weight of the logits, if the two are tied
    whiten             E ~ the nearest low rank of D^1/2 E L,  undone afterwards
    D (tokens,)        how often each token is in the calibration, plus a little for those that are not
    C = L L^T (n, n)   second moments of the inputs of the tied output projection; without one L = 1

Both sides count: rows that are looked up often, and directions that decide between tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.base.heads import output_projection
from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import FactorizedEmbedding, NetworkSpec, token_embedding
from adapters.factorized.moments import Moments, cholesky
from adapters.factorized.shapes import check_patterns, network_spec
from adapters.factorized.targets import Target
from adapters.factorized.whitening import unwhitened
from t3nsor.even_decomposition import even_cores

UNSEEN = 0.1
"""The count of a token that is not in the calibration; it is added to that of all others too."""


class EmbeddingTarget(Target):
    """The embedding, and the output projection if it is tied: one weight, two modules."""

    @property
    def size(self) -> tuple[int, int]:
        """(tokens, features)."""
        return self.linears[0].num_embeddings, self.linears[0].embedding_dim

    @property
    def weights(self) -> list[Tensor]:
        """The table in float64, detached."""
        return [self.linears[0].weight.detach().double()]

    def specs(self) -> list[NetworkSpec]:
        """That of the embedding, which owns the cores, and of the output projection."""
        owner = self.paths[0] if len(self.paths) > 1 else None
        return [replace(self.spec, owner=owner, linear=kind) for kind in ("Embedding", "Linear")[: len(self.paths)]]

    def split(self, cores: list[Tensor]) -> list[list[Tensor]]:
        """The same cores for both."""
        return [cores] * len(self.paths)

    def inputs(self, moments: dict[str, Moments]) -> list[Moments]:
        """The moments of the inputs of the output projection; none if it is not tied."""
        return [moments[path] for path in self.paths[1:]] if moments else []


def embedding_target(model: nn.Module, config: FactorizedConfig) -> EmbeddingTarget:
    """The embedding of a model of transformers, and its network.

    Raises:
        ConfigurationError: the model names none, or it is of another class than ``nn.Embedding``.
    """
    embedding = token_embedding(model)
    if isinstance(embedding, FactorizedEmbedding):
        config.refuse("target_modules", "names dense weights", "an embedding that is factorized", "densify first")
    if type(embedding) is not nn.Embedding:
        given = f"a {type(embedding if isinstance(model, PreTrainedModel) else model).__name__}"
        rule = "'embedding' needs a model of transformers whose embedding is an nn.Embedding"
        config.refuse("target_modules", rule, given, "factorize linears only")
    if not embedding.weight.is_meta and not embedding.weight.isfinite().all():
        config.refuse("target_modules", "names finite weights", "a NaN or an infinity in the embedding", "load others")
    path = next(path for path, module in model.named_modules() if module is embedding)
    check_patterns(config, [path])
    head = output_projection(model)
    is_tied = bool(head) and model.get_submodule(head).weight is embedding.weight
    paths, modules = ((path, head), (embedding, model.get_submodule(head))) if is_tied else ((path,), (embedding,))
    return EmbeddingTarget(paths, modules, config, network_spec(config, path, [embedding], False))


def weighed_table(table: Tensor, spec: NetworkSpec, counts: Tensor, moments: Tensor | None = None) -> Sequence[Tensor]:
    """The cores of low rank, see the head of this file.

    Args:
        table: E (tokens, n), float64.
        counts: D (tokens,), as shares of all tokens.
        moments: C (n, n); None for an output projection with another weight.
    """
    seen = counts / counts[counts > 0].min()
    rows = (seen + UNSEEN).sqrt()[:, None]  # (tokens, 1)
    root = torch.eye(table.shape[1], dtype=table.dtype, device=table.device) if moments is None else cholesky(moments)
    inner, outer = even_cores(rows * (table @ root), spec.core_shapes)  # (1, 1, n, r), (r, tokens, 1, 1)
    return [unwhitened(inner, root), outer / rows[None, ..., None]]


def retie(model: PreTrainedModel) -> None:
    """Let transformers tie embedding and output projection if both are dense, and leave factorized ones alone.

    A pair of networks holds its own cores in common, as the configuration of the model says by not tying weights.
    """
    embedding, head = token_embedding(model), model.get_output_embeddings()
    is_pair = isinstance(embedding, FactorizedEmbedding) and embedding.spec.owner is not None
    was_pair = getattr(model, "has_factorized_pair", False)
    if was_pair and not is_pair:
        head.weight = embedding.weight
    if was_pair != is_pair:
        model.has_factorized_pair = is_pair
        model.config.tie_word_embeddings = not is_pair
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)
