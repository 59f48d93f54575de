"""A lexicon as a packed trie: two uint32 per node and one float32 per word, memory-mapped.

Nodes are numbered breadth first and words alphabetically, so that two arrays hold the whole trie:

    first[n]   the first child of node n; the children of n are first[n] ... first[n + 1] - 1, in order of letters
    packed[n]  24 bits  the number of words before the subtree of n
                1 bit   whether a word ends at n
                7 bits  the letter that leads to n

The word that ends at n is the first one of its subtree, so that the number of words before it is its own number. The
letters of a word are found by descending to the last child whose subtree begins at or before the word. Of the displayed
forms only those are stored that differ from the typed letters.

    <folder>/trie.json  {"format", "alphabet", "nodes", "words", "displayed", "sha256"}
             nodes.npy (2, nodes + 1) uint32, log_frequencies.npy (words,) float32,
             displayed.npy (displayed + 1, 2) uint32: word and first byte; displayed_text.npy uint8: UTF-8
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.lexicon.packing import letter_table, nodes_of
from seq2seq.swipe.lexicon.words import Lexicon

FORMAT = 1
MAX_LETTERS = 2**7
MAX_WORDS = 2**24
ARRAYS = ("nodes", "log_frequencies", "displayed", "displayed_text")


class PackedTrie:
    """A trie of words over the letters of an alphabet; a letter is its place in the alphabet, the root is node 0.

    Build it with ``build`` or ``open``.
    """

    root = 0

    def __init__(self, alphabet: str, arrays: dict[str, np.ndarray]) -> None:
        self.alphabet = alphabet
        self.first, self.packed = np.asarray(arrays["nodes"])  # plain views, faster than a memmap's
        self.log_frequencies: np.ndarray = arrays["log_frequencies"]
        self.arrays = arrays

    @classmethod
    def build(cls, lexicon: Lexicon, alphabet: str) -> "PackedTrie":
        """The trie of a lexicon.

        Raises:
            ConfigurationError: the alphabet is not sorted or too large, a word has a letter outside of it, or there are
                too many words.
        """
        if list(alphabet) != sorted(set(alphabet)) or not 0 < len(alphabet) <= MAX_LETTERS:
            raise ConfigurationError(
                f"An alphabet is a sorted string of 1 to {MAX_LETTERS} distinct letters; got {alphabet!r}: give the "
                "layout's."
            )
        if len(lexicon) >= MAX_WORDS:
            raise ConfigurationError(
                f"A trie has less than {MAX_WORDS} words; got {len(lexicon)}: keep the most frequent ones."
            )
        nodes = nodes_of(letter_table(lexicon.words, alphabet), len(alphabet))
        other = [
            k for k, (word, shown) in enumerate(zip(lexicon.words, lexicon.displayed, strict=True)) if word != shown
        ]
        texts = [lexicon.displayed[k].encode() for k in other]
        starts = np.cumsum([0, *map(len, texts)])
        arrays = {
            "nodes": nodes,
            "log_frequencies": np.asarray(lexicon.log_frequencies, np.float32),
            "displayed": np.stack([[*other, len(lexicon)], starts], 1).astype(np.uint32),
            "displayed_text": np.frombuffer(b"".join(texts), np.uint8),
        }
        return cls(alphabet, arrays)

    def save(self, folder: str | Path) -> None:
        """Write the trie into a folder, which is made if it is not there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array)
        header = {**self._header(), "sha256": checksum(folder)}
        (folder / "trie.json").write_text(json.dumps(header, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: str | Path) -> "PackedTrie":
        """The trie of a folder that ``save`` wrote; its arrays stay on disk and are mapped.

        Raises:
            ConfigurationError: the folder has no trie, or one that was changed or is of another format.
        """
        folder = Path(folder)
        try:
            header = json.loads((folder / "trie.json").read_text(encoding="utf-8"))
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
            trie = cls(header["alphabet"], arrays)
            whole = header == {**trie._header(), "sha256": checksum(folder)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"A lexicon's folder has the files that PackedTrie.save wrote; got {str(folder)!r}: {error}."
            ) from error
        if not whole:
            raise ConfigurationError(
                f"A lexicon's folder is as PackedTrie.save wrote it, in format {FORMAT}; got {str(folder)!r}, whose "
                "header or checksum differs: build it again."
            )
        return trie

    def _header(self) -> dict[str, object]:
        sizes = {"nodes": len(self.first) - 1, "words": len(self), "displayed": len(self.arrays["displayed"]) - 1}
        return {"format": FORMAT, "alphabet": self.alphabet, **sizes}

    def __len__(self) -> int:
        """The number of words."""
        return len(self.log_frequencies)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def children(self, nodes: np.ndarray) -> np.ndarray:
        """The child of each node by each letter: (n,) -> (n, letters) int64, -1 where there is none (node -1: none)."""
        places, letters, found = self.extensions(nodes)
        table = np.full((len(nodes), len(self.alphabet)), -1, np.int64)
        table[places, letters] = found
        return table

    def extensions(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All children of some nodes: (n,) -> places in ``nodes``, letters and children, (children of all,) int64.

        They are in order of places and letters; node -1 has no children.
        """
        nodes = np.asarray(nodes, np.int64)
        starts = self.first[nodes].astype(np.int64)
        counts = np.where(nodes < 0, 0, self.first[nodes + 1] - starts)
        places = np.repeat(np.arange(len(nodes)), counts)
        found = np.arange(len(places)) + (starts - np.cumsum(counts) + counts)[places]
        return places, self.letters_to(found), found

    def step(self, nodes: np.ndarray, letters: np.ndarray) -> np.ndarray:
        """The child of each node by one letter: (n,) int64, (n,) int64 -> (n,) int64, -1 where there is none."""
        return self.children(nodes)[np.arange(len(nodes)), letters]

    def allowed(self, nodes: np.ndarray) -> np.ndarray:
        """Which letters go on from each node: (n,) -> bool (n, letters)."""
        return self.children(nodes) >= 0

    def parents(self, nodes: np.ndarray) -> np.ndarray:
        """The parent of each node, (n,) -> (n,) int64, -1 of the root."""
        return np.searchsorted(self.first, np.asarray(nodes, np.uint32), side="right") - 1

    @cached_property
    def level_starts(self) -> np.ndarray:
        """The first node of each number of letters, (longest + 1,) int64."""
        starts = [0]
        while (following := int(self.first[starts[-1]])) < len(self.first) - 1:
            starts.append(following)
        return np.array(starts)

    @cached_property
    def best_frequencies(self) -> np.ndarray:
        """The log-frequency of the most frequent word that begins with each prefix, (nodes,) float32."""
        nodes = np.arange(len(self.first) - 1)
        words = self.words_at(nodes)
        found = np.where(words >= 0, self.log_frequencies[words], -np.inf).astype(np.float32)
        for begin, end in reversed([*zip(self.level_starts[1:], [*self.level_starts[2:], len(nodes)], strict=True)]):
            np.maximum.at(found, self.parents(nodes[begin:end]), found[begin:end])
        return found

    @property
    def longest(self) -> int:
        """The number of letters of the longest word."""
        return len(self.level_starts) - 1

    def depths(self, nodes: np.ndarray) -> np.ndarray:
        """The number of letters of each node, (n,) -> (n,) int64."""
        return np.searchsorted(self.level_starts, nodes, side="right") - 1

    def related(self, nodes: np.ndarray) -> np.ndarray:
        """Some nodes with all nodes above and below them, sorted and distinct: (n,) -> (m,) int64."""
        found = [above := np.unique(nodes)]
        below = above
        while above.size:
            above = np.unique(self.parents(above[above > self.root]))
            found.append(above)
        while below.size:
            _, _, below = self.extensions(below)
            found.append(below)
        return np.unique(np.concatenate(found))

    def letters_to(self, nodes: np.ndarray) -> np.ndarray:
        """The letter that leads to each node, any shape, int64."""
        return (self.packed[nodes] & (MAX_LETTERS - 1)).astype(np.int64)

    def words_before(self, nodes: np.ndarray) -> np.ndarray:
        """The number of words before the subtree of each node, any shape, int64."""
        return (self.packed[nodes] >> 8).astype(np.int64)

    def words_at(self, nodes: np.ndarray) -> np.ndarray:
        """The number of the word that ends at each node, any shape, int64, -1 where none does or the node is -1."""
        nodes = np.asarray(nodes, np.int64)
        ends = (self.packed[nodes] >> 7 & 1).astype(bool) & (nodes >= 0)
        return np.where(ends, self.words_before(nodes), -1)

    def word(self, index: int) -> str:
        """The typed letters of a word."""
        if not 0 <= index < len(self):
            raise IndexError(f"word {index} of {len(self)}")
        node, letters = self.root, []
        while self.words_at(node) != index:
            children = np.arange(self.first[node], self.first[node + 1])
            node = children[np.searchsorted(self.words_before(children), index, side="right") - 1]
            letters.append(self.alphabet[self.letters_to(node)])
        return "".join(letters)

    def displayed(self, index: int) -> str:
        """How a word is written."""
        words, starts = self.arrays["displayed"].T
        place = int(np.searchsorted(words, index))
        if not 0 <= index < len(self) or words[place] != index:
            return self.word(index)
        return self.arrays["displayed_text"][starts[place] : starts[place + 1]].tobytes().decode()

    def node(self, letters: str) -> int:
        """The node of a prefix, -1 if no word begins with it."""
        node = np.array([self.root])
        for letter in letters:
            if letter not in self.alphabet:
                return -1
            node = self.step(node, np.array([self.alphabet.index(letter)]))
        return int(node[0])

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and bool(self.words_at(self.node(word)) >= 0)


def checksum(folder: Path) -> str:
    """The SHA-256 of the arrays of a folder, in the order of ``ARRAYS``."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        with (folder / f"{name}.npy").open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
