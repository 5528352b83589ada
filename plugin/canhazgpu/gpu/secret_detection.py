"""Does a text look like a token, a key or a password; pure.

The names of models are read from command lines, which hold secrets too. In doubt the answer is
yes: a name that is not shown does no harm.
"""

from __future__ import annotations

import re
from itertools import pairwise

MAX_WORD_CHARS = 24
"""Longest run of letters and digits that can be a word of a model's name."""
LONG_WORD_CHARS = 12
"""A word of this length or more is readable, or a secret."""
MIN_MIXED_WORD_CHARS = 6
MIN_MIXED_CHARS = 16
MAX_KIND_CHANGE_SHARE = 0.4
"""Largest share of neighbouring characters of different kinds in words that are not random, judged
from `MIN_MIXED_CHARS` up; random text has 0.6."""

_READABLE_WORD = re.compile(r"(?:[A-Z]{0,4}[a-z]{2,}+)*+[A-Z]{0,4}[0-9]{0,3}[A-Za-z]?")
"""``HuggingFaceTB``, ``togethercomputer``, ``DeepSeekMoE16B``."""
_HASH = re.compile(r"[0-9a-f]{12,}")

# Issuers mark their tokens by a prefix, so that scanners find them.
_TOKEN_PREFIXES = re.compile(
    r"""
    (?:^|[/:=@,._-])
    (?: hf_ | api_org_ | gsk_ | nvapi- | r8_ | pplx- | xai-(?!org/) | tvly- | jina_ | tgp_v1_
      | lsv2_ | gh[pousr]_ | github_pat_ | glpat- | glsa_ | xox[a-z]- | npm_ | pypi- | dckr_pat_
      | dop_v1_ | shpat_ | whsec_ | AIza | ya29\. | eyJ[A-Za-z0-9]
      | A(?:KI|SI|RO|ID|BI|CC)A[A-Z0-9]{8} )
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
    """Tell whether a path contains random text; the text may contain slashes itself.

    Hashes, readable words and dates are usual in paths and do not count.
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
    """Return the share of neighbouring characters that are of different kinds."""
    pairs = [pair for word in words for pair in pairwise(word)]
    return sum(_character_kind(one) != _character_kind(other) for one, other in pairs) / len(pairs)


def _character_kind(letter: str) -> str:
    if letter.isdigit():
        return "digit"
    return "upper" if letter.isupper() else "lower"
