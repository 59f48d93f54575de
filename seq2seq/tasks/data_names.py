"""What a data set made of your own files is called.

reviews/test.tsv                    reviews             a file named after its split: the folder
data/reviews_test.tsv               reviews             the file without the split
spam.csv                            spam                else the file
a/reviews/test.tsv, b/reviews/...   a/reviews, b/...    several of one name: as much of the path as tells them apart
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

SPLIT_WORDS = "train(ing)?|valid(ation)?|val|dev(elopment)?|eval(uation)?|test(ing)?"
SPLIT_WORD = re.compile(rf"(^|[._-])({SPLIT_WORDS})(?=$|[._-])", re.IGNORECASE)
"""The name of a split in a file's name."""


def data_set_name(path: str) -> str:
    """The name of the data set that a file belongs to."""
    return _parts(path)[-1]


def data_set_names(paths: Iterable[str]) -> dict[str, str]:
    """A name for each file's data set, longer where the short ones are equal."""
    same_name = defaultdict(set)
    for path in paths:
        same_name[data_set_name(path)].add(path)
    return {path: name for members in same_name.values() for path, name in _distinct(sorted(members)).items()}


def _distinct(paths: list[str]) -> dict[str, str]:
    """The shortest ends of these paths, all with equally many parts, that are distinct; else the paths themselves."""
    parts = [_parts(path) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len({*names}) == len(names):
            return dict(zip(paths, names, strict=True))
    return {path: path for path in paths}


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path without the suffix and the name of the split; never empty."""
    whole = PurePath(path)
    stem = SPLIT_WORD.sub("", whole.stem).strip("._-")
    folders = tuple(part for part in whole.parts[:-1] if part not in (whole.anchor, ".", ".."))
    return (*folders, *([stem] if stem else [])) or (whole.stem,)
