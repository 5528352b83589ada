"""A report as the text of its JSON, piece by piece; pure.

The standard library indents in Python, one value after the other: for the users on all nodes of a
large cluster that takes seconds, and the whole text is in memory several times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice

from canhazgpu.report.export import UsageList, report_head, report_lists, usage_keys, usage_values
from canhazgpu.report.totals import Report

ROWS_PER_PIECE = 1000
_JSON_WORDS = {"None": "null", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""What `json` writes for values of which `str` makes something else."""


def report_json_text(report: Report) -> Iterator[str]:
    """Yield the pieces of what ``json.dumps(report_to_dict(report), indent=2)`` returns."""
    yield json.dumps(report_head(report), indent=2).removesuffix("\n}")
    form = _RowForm(usage_keys(report), wasted=report.wasted)
    for one in report_lists(report):
        yield f',\n  "{one.key}": '
        yield from _array(form.rows(one))
    yield "\n}"


def _array(rows: Iterator[str]) -> Iterator[str]:
    begin = "[\n"
    while some := ",\n".join(islice(rows, ROWS_PER_PIECE)):
        yield begin + some
        begin = ",\n"
    yield "[]" if begin == "[\n" else "\n  ]"


class _RowForm:
    """Writes totals as objects inside a list of the document."""

    def __init__(self, keys: Sequence[str], *, wasted: bool) -> None:
        self._keys = keys
        self._wasted = wasted
        # Of very many names few differ.
        self._quoted = cache(json.dumps)

    def rows(self, of: UsageList) -> Iterator[str]:
        """Yield the text of each group of the list."""
        fields = ",\n".join(f'      "{key}": %s' for key in (*of.name_keys, *self._keys))
        row = f"    {{\n{fields}\n    }}"
        quoted, wasted = self._quoted, self._wasted
        for names, usage in of.groups:
            values = usage_values(usage, self._counts(usage.reservations), wasted=wasted)
            texts = [_JSON_WORDS.get(one, one) for one in map(str, values)]
            yield row % (*map(quoted, names), *texts)

    def _counts(self, reservations: Mapping[str, int]) -> str:
        if not reservations:
            return "{}"
        counts = [f"        {self._quoted(type_)}: {n}" for type_, n in reservations.items()]
        return "{\n" + ",\n".join(counts) + "\n      }"
