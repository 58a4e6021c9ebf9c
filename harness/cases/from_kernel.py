"""The case that words about one kernel mean: of `boot`, `image`, `compare`, the fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bootproof.harness.case import Case
from bootproof.harness.cases import schema
from bootproof.harness.inputs import named


def case_of(kernel: str, words: Mapping[str, Any], command: str) -> Case:
    """The case of a kernel as `command` takes it; `words` are by the names of its options.

    Raises UserError, FetchError, and LoaderError when the file is no kernel, or, unless that is
    asked for, one whose boot cannot be proved.
    """
    schema.check_keys((entry.name for entry in schema.options(command)), words, (), "option")
    source = named.find(kernel)
    from bootproof.harness.cases import of_source  # reads kernels: not for what is none

    return of_source.case(source, words)
