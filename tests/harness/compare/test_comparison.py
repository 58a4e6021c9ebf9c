"""A comparison as JSON."""

from __future__ import annotations

import json

from tests.builders.comparisons import BAD, GOOD, comparison


def test_json_has_everything() -> None:
    data = json.loads(json.dumps(comparison(BAD, GOOD).to_json()))
    assert (data["version"], data["unexplained"]) == (2, 1)
    assert data["differences"][1] == {
        "section": "registers at the entry",
        "name": "rbx",
        "ours": "0x1040",
        "reference": "0x21e0",
        "code": "place",
    }
    assert data["ours"]["stages"] == [
        {"name": "first-output", "guest_seconds": None, "instructions": 900_000},
        {"name": "banner", "guest_seconds": 0.0, "instructions": None},
    ]
