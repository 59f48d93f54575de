"""Independent readings of the small world's sentences: oracles shared by its tests."""

from seq2seq.small_world import lexicon

WITHOUT_CONTENT = {"was", "were", "has", "have", "been", "will", "be", "did", "by", "a", "an", ".", "?"}
BASE_OF = {lexicon.plural(noun): noun for noun in lexicon.KIND_OF} | {
    form: verb.base for verb in lexicon.VERBS.values() for form in (verb.base, verb.past, verb.participle)
}
GOOD = {*lexicon.PRAISE, *lexicon.LIKING, *(f"{verb}d" if verb[-1] == "e" else f"{verb}ed" for verb in lexicon.LIKING)}
BAD = {
    *lexicon.BLAME, *lexicon.DISLIKING, *(f"{verb}d" if verb[-1] == "e" else f"{verb}ed" for verb in lexicon.DISLIKING),
}  # fmt: skip
DENYING = {"not", "never", "hardly", "far", "anything"}


def content(text: str) -> set[str]:
    """The content words in canonical form: one of two synonyms, singular nouns, base forms of verbs."""
    bases = (BASE_OF.get(word, word) for word in text.split() if word not in WITHOUT_CONTENT)
    return {min(word, lexicon.SYNONYMS.get(word, word)) for word in bases}


def favourable(text: str) -> bool:
    """Whether a text with one word of praise or blame is favourable; each negation flips it."""
    words = text.split()
    (judged,) = [word for word in words if word in GOOD | BAD]
    return (judged in GOOD) != (sum(word in DENYING for word in words) % 2 == 1)
