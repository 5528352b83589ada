"""Does a text look like a token, a key or a password; pure.

A model's name is taken from command lines, which also hold secrets. This errs towards yes: a name
that is not shown harms nobody.
"""

from __future__ import annotations

import re
from itertools import pairwise

LONG_WORD = 16
"""Letters and digits in a row: no word of a model's name is so long and has digits in it."""
LONGEST_WORD = 24
LEAST_MIXED_WORD = 6
MOST_MIXED = 0.4
"""Share of neighbours of different kinds in a text's longer words; random ones have 0.5 or more."""

# Issuers mark their tokens, so that they can be found: most begin like this.
_MARKED = re.compile(
    r"""
    (?:^|[/:=@,._-])
    (?: hf_ | api_org_ | gsk_ | nvapi- | r8_ | pplx- | xai- | tvly- | jina_ | tgp_v1_ | lsv2_
      | gh[pousr]_ | github_pat_ | glpat- | glsa_ | xox[a-z]- | npm_ | pypi- | dckr_pat_ | dop_v1_
      | shpat_ | whsec_ | AIza | ya29\. | eyJ[A-Za-z0-9] | A(?:KI|SI|RO|ID|BI|CC)A[A-Z0-9]{8} )
    | (?:^|[/:=@,])(?: [sprc]k[-_] | key- | fw_ | SG\. )
    | token(?!iz) | secret | passw | api[-_]?key | credential | bearer
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-
    """,
    re.VERBOSE | re.IGNORECASE,
)


def looks_secret(text: str) -> bool:
    """Tell whether the text, or a part of it, looks like a secret."""
    if _MARKED.search(text):
        return True
    words = re.findall(r"[A-Za-z0-9]+", text)
    if any(_is_long(word) for word in words):
        return True
    mixed = [word for word in words if len(word) >= LEAST_MIXED_WORD]
    return sum(map(len, mixed)) >= LONG_WORD and _mixture(mixed) > MOST_MIXED


def _is_long(word: str) -> bool:
    if len(word) > LONGEST_WORD:
        return True
    return len(word) >= LONG_WORD and not word.isalpha()


def _mixture(words: list[str]) -> float:
    """Return the share of neighbouring letters and digits that are of different kinds."""
    pairs = [pair for word in words for pair in pairwise(word)]
    return sum(_kind(one) != _kind(other) for one, other in pairs) / len(pairs)


def _kind(letter: str) -> str:
    if letter.isdigit():
        return "digit"
    return "upper" if letter.isupper() else "lower"
