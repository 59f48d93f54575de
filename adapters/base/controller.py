"""The adapter of the active task at one place of the model.

A place has one controller for each adapter configuration, and the controller has one module for each task. The active
task is state of the model (``set_active_task``), not an argument of its forward, which ``generate`` would not accept.
"""

from torch import Tensor, nn

from adapters.validation import ConfigurationError

ALL_TASKS = "all_tasks"


class AdapterController(nn.Module):
    """Modules by task; the active task's module is used, else the one attached for all tasks, else none."""

    def __init__(self, active_task: str | None = None) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict()
        self.active_task = active_task

    def add(self, task: str | None, module: nn.Module) -> None:
        """Add the module of one task, or of all tasks if ``task`` is None.

        Raises:
            ConfigurationError: the task already has one.
        """
        name = task or ALL_TASKS
        if name in self.tasks:
            raise ConfigurationError(
                f"A place has one module for each adapter and task; got a second one for task {name!r}: "
                "attach it for another task or as another kind."
            )
        self.tasks[name] = module

    @property
    def active(self) -> nn.Module | None:
        """The active module, or None."""
        if self.active_task in self.tasks:
            return self.tasks[self.active_task]
        return self.tasks[ALL_TASKS] if ALL_TASKS in self.tasks else None  # noqa: SIM401 - ModuleDict has no get

    def forward(self, x: Tensor) -> Tensor:
        return self.active(x)
