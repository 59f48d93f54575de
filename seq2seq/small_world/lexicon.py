"""The words of the small world and their relations.

Every sentence of the world consists of the words below, a closed vocabulary: nouns with their kinds (an is-a taxonomy
of one or two levels), verbs with the kinds of their patients, adjectives with opposites, words of praise and blame.
Synonyms come in pairs, and a word has at most one, so that rewording is its own inverse.
"""

from dataclasses import dataclass

MEN = ("tom", "max", "ben", "paul", "john", "peter", "david", "oscar")
WOMEN = ("anna", "mary", "lucy", "emma", "jane", "rosa", "nina", "clara")
PEOPLE = MEN + WOMEN

# kind -> its direct members; a member that is itself a key has its own members.
TAXONOMY = {
    "person": (
        "farmer", "doctor", "physician", "teacher", "tutor", "sailor", "baker", "child", "kid", "thief", "robber",
        "soldier", "warrior", "singer", "painter", "nurse",
    ),
    "animal": ("bird", "dog", "hound", "cat", "horse", "rabbit", "bunny", "cow", "wolf", "goat", "pig", "hog"),
    "bird": ("duck", "crow", "owl", "hen"),
    "food": ("fruit", "cake", "pie", "egg", "sausage"),
    "fruit": ("apple", "pear", "plum", "lemon"),
    "tool": ("hammer", "axe", "spade", "rope", "cord", "lamp"),
    "vehicle": ("car", "train", "ship", "boat", "cart", "wagon"),
    "toy": ("ball", "doll", "kite", "drum"),
    "garment": ("hat", "coat", "jacket", "shirt", "scarf"),
    "furniture": ("table", "chair", "bed", "sofa", "couch"),
}  # fmt: skip
IRREGULAR_PLURALS = {
    "couch": "couches",
    "scarf": "scarves",
    "child": "children",
    "thief": "thieves",
    "wolf": "wolves",
    "bunny": "bunnies",
    "person": "people",
}
MASS_KINDS = ("food", "fruit", "furniture")  # nouns without a plural and an indefinite article

# Things that people have opinions about.
SHOWS = (
    "film",
    "movie",
    "song",
    "tune",
    "story",
    "tale",
    "trip",
    "journey",
    "meal",
    "dinner",
    "party",
    "game",
    "lesson",
)

NOUN_SYNONYMS = (
    ("doctor", "physician"), ("teacher", "tutor"), ("child", "kid"), ("thief", "robber"), ("soldier", "warrior"),
    ("dog", "hound"), ("rabbit", "bunny"), ("pig", "hog"), ("rope", "cord"), ("ship", "boat"), ("cart", "wagon"),
    ("coat", "jacket"), ("sofa", "couch"), ("film", "movie"), ("song", "tune"), ("story", "tale"),
    ("trip", "journey"), ("meal", "dinner"),
)  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """A transitive verb: its forms and the kinds of its patients."""

    base: str
    past: str
    participle: str
    patients: tuple[str, ...]


ANIMATE = ("person", "animal")
OBJECTS = ("tool", "vehicle", "toy", "garment", "furniture")


def _regular(base: str, patients: tuple[str, ...]) -> Verb:
    past = base + ("d" if base.endswith("e") else "ed")
    return Verb(base, past, past, patients)


VERBS = {
    verb.base: verb
    for verb in (
        *(
            _regular(base, ANIMATE)
            for base in (
                "chase", "pursue", "help", "assist", "frighten", "scare", "greet", "welcome", "follow", "visit",
                "push", "shove", "pull", "watch", "observe", "thank", "kick", "hinder", "attack", "defend",
            )
        ),
        Verb("see", "saw", "seen", ANIMATE + OBJECTS),
        Verb("find", "found", "found", ANIMATE + OBJECTS),
        Verb("lose", "lost", "lost", OBJECTS),
        Verb("buy", "bought", "bought", (*OBJECTS, "food")),
        Verb("sell", "sold", "sold", (*OBJECTS, "food")),
        *(
            _regular(base, OBJECTS)
            for base in ("purchase", "repair", "mend", "wash", "rinse", "paint", "destroy", "wreck")
        ),
        Verb("steal", "stole", "stolen", (*OBJECTS, "food")),
        Verb("hide", "hid", "hidden", (*OBJECTS, "food")),
        Verb("eat", "ate", "eaten", ("food",)),
        *(_regular(base, ("food",)) for base in ("devour", "cook", "prepare", "taste")),
    )
}  # fmt: skip
VERB_SYNONYMS = (
    ("chase", "pursue"), ("help", "assist"), ("frighten", "scare"), ("greet", "welcome"), ("push", "shove"),
    ("watch", "observe"), ("buy", "purchase"), ("repair", "mend"), ("wash", "rinse"), ("destroy", "wreck"),
    ("eat", "devour"), ("cook", "prepare"),
)  # fmt: skip
VERB_OPPOSITES = (("help", "hinder"), ("push", "pull"), ("find", "lose"), ("buy", "sell"), ("attack", "defend"),
                  ("repair", "destroy"))  # fmt: skip
REFLEXIVE_VERBS = ("help", "assist", "wash", "hide", "defend", "see", "observe", "paint", "frighten", "scare")

# (a word and its synonym), (the opposite and its synonym).
ADJECTIVE_OPPOSITES = (
    (("big", "large"), ("small", "little")),
    (("old", "ancient"), ("new", "modern")),
    (("clean", "tidy"), ("dirty", "filthy")),
    (("wet", "soaked"), ("dry", "arid")),
    (("fast", "quick"), ("slow", "sluggish")),
    (("rich", "wealthy"), ("poor", "needy")),
    (("strong", "powerful"), ("weak", "feeble")),
    (("clever", "smart"), ("stupid", "foolish")),
    (("angry", "furious"), ("calm", "peaceful")),
    (("loud", "noisy"), ("quiet", "silent")),
    (("happy", "glad"), ("sad", "unhappy")),
    (("right", "correct"), ("wrong", "incorrect")),
    (("same", "identical"), ("different", "distinct")),
    (("true", "real"), ("false", "untrue")),
)
THING_ADJECTIVES = tuple(w for sides in ADJECTIVE_OPPOSITES[:4] for side in sides for w in side)
BEING_ADJECTIVES = (*tuple(w for sides in ADJECTIVE_OPPOSITES[4:10] for side in sides for w in side), "big", "small")
COLOURS = ("red", "blue", "green", "yellow", "black", "white")

PRAISE = ("good", "fine", "great", "superb", "lovely", "charming", "funny", "amusing", "exciting", "thrilling",
          "wonderful", "marvellous")  # fmt: skip
BLAME = ("bad", "lousy", "awful", "terrible", "nasty", "horrid", "dull", "boring", "tedious", "tiresome",
         "dreadful", "dismal")  # fmt: skip
LIKING = ("like", "enjoy", "love", "adore")
DISLIKING = ("dislike", "resent", "hate", "detest")
DENIALS = ("not", "never", "hardly", "far from", "anything but")

PLACES = ("in the garden", "near the river", "at the market", "in the forest", "on the road", "behind the barn",
          "in the kitchen", "by the lake", "under the bridge", "at the station")  # fmt: skip
TIMES = ("yesterday", "today", "on monday", "on sunday", "at noon", "at night", "in the morning", "in the evening")
ADVERBS = ("quickly", "slowly", "gladly", "secretly", "finally")
NUMBER_WORDS = ("none", "one", "two", "three", "four", "five")

# A past form is reworded like its base; the table has both directions of each pair.
SYNONYMS: dict[str, str] = {}
for _first, _second in (
    *NOUN_SYNONYMS,
    *VERB_SYNONYMS,
    *(side for sides in ADJECTIVE_OPPOSITES for side in sides),
    *zip(PRAISE[::2], PRAISE[1::2], strict=True),
    *zip(BLAME[::2], BLAME[1::2], strict=True),
    *zip(LIKING[::2], LIKING[1::2], strict=True),
    *zip(DISLIKING[::2], DISLIKING[1::2], strict=True),
):
    SYNONYMS.setdefault(_first, _second)
    SYNONYMS.setdefault(_second, _first)

OPPOSITES: dict[str, str] = {}
for _first, _second in (
    *VERB_OPPOSITES,
    *((ours[i], theirs[i]) for ours, theirs in ADJECTIVE_OPPOSITES for i in range(2)),
    *zip(PRAISE, BLAME, strict=True),
    *zip(LIKING, DISLIKING, strict=True),
):
    OPPOSITES.setdefault(_first, _second)
    OPPOSITES.setdefault(_second, _first)

KIND_OF = {member: kind for kind, members in TAXONOMY.items() for member in members}


def kinds_above(noun: str) -> tuple[str, ...]:
    """Return every kind that a noun belongs to, nearest first: `duck` -> (`bird`, `animal`)."""
    kinds = []
    while noun in KIND_OF:
        noun = KIND_OF[noun]
        kinds.append(noun)
    return tuple(kinds)


def members_of(kind: str) -> tuple[str, ...]:
    """Return every noun below a kind that has no members itself: `animal` -> (`duck`, ..., `dog`, ...)."""
    return tuple(
        noun for member in TAXONOMY[kind] for noun in (members_of(member) if member in TAXONOMY else (member,))
    )


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def with_article(noun: str) -> str:
    """`a duck`, `an owl`, `furniture`."""
    if noun in MASS_KINDS:
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun
