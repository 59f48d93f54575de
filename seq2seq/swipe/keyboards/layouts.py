"""The layouts of a data set, by name."""

from pathlib import Path

from adapters.validation import refuse
from seq2seq.swipe.keyboards.layout import Layout, load_layout


class Layouts(dict[str, Layout]):
    """Layouts by name; one that is missing is loaded by its name or path, and is then there by its own name, too."""

    def __missing__(self, name: str | Path) -> Layout:
        layout = load_layout(name)
        if layout.name in self and self[layout.name] != layout:
            fix = "rename one of the two"
            refuse("layout", "must have a name of its own", f"another {layout.name!r} at {name}", fix, "the data set")
        self[layout.name] = self[str(name)] = layout
        return layout
