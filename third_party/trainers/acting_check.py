"""One check in the first training batch and one in the first evaluation batch that no adapter is bypassed."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from adapters.acting import WatchedPass, unwrapped

logger = logging.getLogger(__name__)


class ActingCheckMixin:
    """Mixin over transformers' ``Trainer``: a delta that no forward calls is refused in the first batch.

    The batch itself is watched, see ``adapters.acting``, so that a run computes the same as without the check. With
    torch.compile the first batch of each kind is not compiled.

    Raises:
        adapters.ConfigurationError: in ``train`` or ``evaluate``; the first batch reads weights of adapted modules
            without calling them.
    """

    phases_checked: frozenset[str] = frozenset()

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        def again() -> None:
            self.compute_loss(self.model, self._prepare_inputs(dict(inputs)))

        with self._checked_once("training", again):
            return super().training_step(model, inputs, *args, **kwargs)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        step = super().prediction_step
        with self._checked_once("evaluation", lambda: step(self.model, dict(inputs), *args, **kwargs)):
            return step(model, inputs, *args, **kwargs)

    @contextlib.contextmanager
    def _checked_once(self, phase: str, again: Callable[[], Any]) -> Iterator[None]:
        """Watch the body if it is the first of its phase; ``again`` repeats its forward pass."""
        if phase in self.phases_checked:
            yield
            return
        self.phases_checked |= {phase}
        with WatchedPass(unwrapped(self.model)) as watched:
            yield
        if left_out := watched.check(again):
            logger.warning("The first %s batch calls no adapter of %s.", phase, ", ".join(left_out))
