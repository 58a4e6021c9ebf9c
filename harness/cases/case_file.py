"""Cases in a JSON file: how generated ones reach pytest, and how any can be kept and run again.

Owns the file's layout; what a case looks like in it is bootproof.harness.cases.schema's. The name
ends in SUFFIX, which is how bootproof.harness.suite.items knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.case import Case
from bootproof.harness.cases.schema import SchemaError, case_from_data, case_to_data
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import read_given
from bootproof.harness.results.results import write_text

SUFFIX: Final = ".cases.json"
_VERSION: Final = 1
_OURS: Final = re.compile(rb'\A\{\s*"version": [0-9]+,\s*"cases": \[').search
_MOST_BYTES: Final = 64 << 20


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """Writes all of the file or nothing. Raises UserError."""
    data = {"version": _VERSION, "cases": [case_to_data(case) for case in cases]}
    write_text(path, json.dumps(data, indent=2) + "\n", _OURS)


def read_cases(path: Path) -> list[Case]:
    """The cases of a file, in its order. Raises UserError."""
    try:
        data = json.loads(read_given(path, _MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("cases"), list):
        raise UserError(f"{path}: must be an object with a list named 'cases'")
    if data.get("version") != _VERSION:
        raise UserError(f"{path}: version {data.get('version')!r} is not {_VERSION}")
    cases = []
    for number, item in enumerate(data["cases"]):
        try:
            cases.append(case_from_data(item))
        except SchemaError as error:
            raise UserError(f"{path}: cases[{number}]: {error}") from error
    return cases
