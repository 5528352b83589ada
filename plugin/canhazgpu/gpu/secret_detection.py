"""Does a text look like a token, a key or a password; pure.

A model's name is taken from command lines, which also hold secrets. This errs towards yes: a name
that is not shown harms nobody.
"""

from __future__ import annotations

import re
from itertools import pairwise

MAX_WORD_CHARS = 24
"""Letters and digits in a row; no word of a model's name has more."""
LONG_WORD_CHARS = 12
"""A word so long is one that people write, or secret."""
MIN_MIXED_WORD_CHARS = 6
MIN_MIXED_CHARS = 16
MAX_KIND_CHANGE_SHARE = 0.4
"""Share of neighbours of different kinds, from so many letters up; random ones have 0.6."""

_READABLE_WORD = re.compile(r"(?:[A-Z]{0,4}[a-z]{2,}+)*+[A-Z]{0,4}[0-9]{0,3}[A-Za-z]?")
"""``HuggingFaceTB``, ``togethercomputer``, ``DeepSeekMoE16B``."""
_HASH = re.compile(r"[0-9a-f]{12,}")

# Issuers mark their tokens, so that they can be found: most begin like this.
_TOKEN_PREFIXES = re.compile(
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
    if _TOKEN_PREFIXES.search(text):
        return True
    words = _words(text)
    return any(_is_random(word) for word in words) or _are_random_words(words)


def has_random_parts(path: str) -> bool:
    """Tell whether a path is in part a random text, of which slashes are a part too.

    Hashes and what people write, dates and all, are usual in paths.
    """
    return _are_random_words(
        [one for one in _words(path) if not (_READABLE_WORD.fullmatch(one) or _HASH.fullmatch(one))]
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9]+", text)


def _is_random(word: str) -> bool:
    return len(word) > MAX_WORD_CHARS or (
        len(word) >= LONG_WORD_CHARS and not _READABLE_WORD.fullmatch(word)
    )


def _are_random_words(words: list[str]) -> bool:
    mixed = [word for word in words if len(word) >= MIN_MIXED_WORD_CHARS]
    return (
        sum(map(len, mixed)) >= MIN_MIXED_CHARS
        and _kind_change_share(mixed) > MAX_KIND_CHANGE_SHARE
    )


def _kind_change_share(words: list[str]) -> float:
    """Return the share of neighbouring letters and digits that are of different kinds."""
    pairs = [pair for word in words for pair in pairwise(word)]
    return sum(_character_kind(one) != _character_kind(other) for one, other in pairs) / len(pairs)


def _character_kind(letter: str) -> str:
    if letter.isdigit():
        return "digit"
    return "upper" if letter.isupper() else "lower"
