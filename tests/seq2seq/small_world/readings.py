"""How a person would read the small world's sentences: the oracles that its tests share."""

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
    """The words that carry meaning, in one form each: synonyms alike, nouns singular, verbs in their base form."""
    bases = (BASE_OF.get(word, word) for word in text.split() if word not in WITHOUT_CONTENT)
    return {min(word, lexicon.SYNONYMS.get(word, word)) for word in bases}


def favourable(text: str) -> bool:
    """Whether a text with one word of praise or blame speaks well of something: each denial turns it round."""
    words = text.split()
    (judged,) = [word for word in words if word in GOOD | BAD]
    return (judged in GOOD) != (sum(word in DENYING for word in words) % 2 == 1)
