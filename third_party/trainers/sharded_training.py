"""Training with the model sharded over processes by FSDP2, through accelerate.

    optimizer.pt     the state of the whole model, as one process writes it; so any number of processes resumes from it
    generate         all processes take as many steps as the longest answer, as each step gathers the weights
    evaluation       unmerged, see ``merged_evaluation``

FSDP1 keeps the Parameters of a block in one flat one; torch 2.13 ends with a segmentation fault when that is gathered
to be saved on a CPU, and transformers 5.23 announces its removal, so it is refused.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.utils._pytree import tree_map_only
from transformers import Trainer

from adapters.sharded import as_sharded, is_sharded, whole


def check_sharding(trainer: Trainer) -> None:
    """Check what shards the model of a new trainer.

    Raises:
        ValueError: DeepSpeed or FSDP1; FSDP was asked for where accelerate does not shard, or by the launcher alone.
    """
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            "A model is sharded by FSDP; got DeepSpeed, whose engine keeps the optimizer and writes checkpoints of its "
            "own: set fsdp instead."
        )
    if trainer.args.fsdp and not trainer.is_fsdp_enabled:
        raise ValueError(
            "accelerate shards a model over accelerators; got fsdp on a CPU, where it would silently train with DDP: "
            "leave fsdp out."
        )
    if trainer.is_fsdp_enabled and not trainer.args.fsdp:
        raise ValueError(
            "The training argument fsdp shards a model; got a launcher, or an earlier run of this process, that asks "
            "for it alone: set fsdp to true."
        )
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError(
            "A model is sharded by FSDP2; got FSDP1, which transformers is about to remove: leave version out of "
            "fsdp_config, or set it to 2."
        )


class ShardedTrainingMixin:
    """Mixin over transformers' ``Trainer``; changes nothing for a model that is not sharded."""

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_fsdp_enabled and not is_sharded(self.model):
            join_tied_embeddings(self.model)
        prepared = super()._prepare_for_training(*args, **kwargs)
        if is_sharded(self.model):
            self._generate_in_step()
        return prepared

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self._shard_untrained()
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self._shard_untrained()
        return super().predict(*args, **kwargs)

    def _shard_untrained(self) -> None:
        """Shard a model that does not train first, as a baseline's; accelerate prepares it with an optimizer only."""
        if self.is_fsdp_enabled and not is_sharded(self.model):
            join_tied_embeddings(self.model)
            self.accelerator._models.append(fsdp2_prepare_model(self.accelerator, self.model))
            register_fsdp_forward_method(self.model, "generate")  # as transformers does before training
            self._generate_in_step()

    def _generate_in_step(self) -> None:
        self.model._is_fsdp_managed_module = True  # so transformers does

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if is_sharded(self.model):
            self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = tree_map_only(Tensor, whole, self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir, "optimizer.pt"))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, "scheduler.pt"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint, "optimizer.pt"), map_location="cpu", weights_only=True)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state["state"] = {
            index: {name: _sharded_like(value, parameters[index]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, "scheduler.pt"), weights_only=True))


def join_tied_embeddings(model: nn.Module) -> None:
    """Let embeddings that are tied to the model's input embedding be that module, as those of T5's two stacks.

    accelerate 1.15 shards the module of the input embedding with the head, and torch 2.13 refuses a Parameter that is
    in a second group of modules.
    """
    first = model.get_input_embeddings()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child is not first and type(child) is type(first) and child.weight is first.weight:
                setattr(parent, name, first)


def _sharded_like(value: Any, parameter: nn.Parameter) -> Any:
    """An entry of the optimizer's state, sharded as its parameter if it has the same shape; a step count has not."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return as_sharded(value, parameter)
    return value
