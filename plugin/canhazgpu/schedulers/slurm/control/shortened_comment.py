"""A text that is too long for a job's comment or a node's reason, shortened; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_COMMENT = 400
"""Characters of a comment, of a reason and of a notice."""
OMISSION = " ... "
LONGEST_WORD = 64
"""Characters of the longest word that is kept whole: no PID and no user's name is longer."""

_KEPT = (
    r"\b(?:in use|reserved) by [^,;:(]{1,64}?(?=[,;:]| \(| WITHOUT |$)",
    r"\bPID [0-9]{1,10}(?: \([^,;)]{0,64}\)+)?",
    r"\(since [^)]{1,40}\)$",
)
"""What a person needs to find who is meant: the first user, the first process, since when."""


def shortened_comment(text: str, length: int = MAX_COMMENT) -> str:
    """Return the text in at most `length` characters, cut where a word ends.

    The first user, the first PID and the time since when a GPU is in use are kept, wherever in the
    text they are.
    """
    if len(text) <= length:
        return text
    found = [match for pattern in _KEPT if (match := re.search(pattern, text))]
    kept = sorted(match.span() for match in found)
    for end in _word_ends(text, length):
        later = [text[start:stop] for start, stop in kept if stop > end]
        shortened = OMISSION.join([text[:end].rstrip(" ,;:"), *later])
        if len(shortened) + (0 if later else len(OMISSION.rstrip())) <= length:
            return shortened if later else shortened + OMISSION.rstrip()
    return text[:length]


def _word_ends(text: str, length: int) -> Iterator[int]:
    """Yield where the text may be cut, the last place first."""
    for end in range(min(length, len(text)), 0, -1):
        in_word = end < len(text) and text[end] not in " ," and text[end - 1] not in " ,"
        if not in_word or end - max(text.rfind(one, 0, end) for one in " ,") > LONGEST_WORD:
            yield end
