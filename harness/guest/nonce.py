"""What only the guest of this case can know: its proof is over it (see evidence)."""

from __future__ import annotations

import hashlib


def nonce_for(case_id: str, kernel_digest: str) -> str:
    """The nonce of a case: the same in every run, another one for another case or kernel."""
    return hashlib.sha256(f"{case_id}\n{kernel_digest}".encode()).hexdigest()[:32]
