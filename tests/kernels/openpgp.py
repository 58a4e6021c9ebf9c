"""A signing key of the moment and clear-signed texts, without gpg and its agent (RFC 9580).

Just enough of OpenPGP for gpgv to check: a version 4 RSA key with one user ID (sections 5.5.2,
5.11, 10.1), signatures over SHA-256 (5.2.3, 5.2.4) and the cleartext framework (7). The keys are
made from a seed and are worth nothing.
"""

from __future__ import annotations

import base64
import hashlib
import random
import struct
from dataclasses import dataclass

EXPONENT = 65537
PRIME_BITS = 512
RSA, SHA256 = 1, 8
TEXT_SIGNATURE, SELF_SIGNATURE = 0x01, 0x13
PUBLIC_KEY_PACKET, USER_ID_PACKET, SIGNATURE_PACKET = 6, 13, 2
# RFC 8017 section 9.2, note 1: the DER prefix of a SHA-256 digest
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass(frozen=True)
class Key:
    """`keyring` is what gpgv --keyring reads; sign() clear-signs a text. `lifetime` in seconds."""

    modulus: int
    secret: int
    name: str
    created: int = 1_600_000_000
    lifetime: int = 0

    @property
    def public(self) -> bytes:
        return struct.pack(">BIB", 4, self.created, RSA) + mpi(self.modulus) + mpi(EXPONENT)

    @property
    def keyring(self) -> bytes:
        user = self.name.encode()
        subject = self._hashed_key() + b"\xb4" + struct.pack(">I", len(user)) + user
        return b"".join(
            (
                packet(PUBLIC_KEY_PACKET, self.public),
                packet(USER_ID_PACKET, user),
                packet(SIGNATURE_PACKET, self._signature(SELF_SIGNATURE, subject)),
            )
        )

    def sign(self, text: bytes, *others: Key) -> bytes:
        """Clear-sign `text`. The signatures of `others` are added, and are of another text."""
        lines = [line.rstrip(b" \t") for line in text.split(b"\n")]
        if lines[-1] == b"":
            lines.pop()
        body = self._text_signature(b"\r\n".join(lines))
        body += b"".join(other._text_signature(b"something else") for other in others)
        escaped = [b"- " + line if line.startswith(b"-") else line for line in lines]
        return b"\n".join(
            (
                b"-----BEGIN PGP SIGNED MESSAGE-----",
                b"Hash: SHA256",
                b"",
                *escaped,
                b"-----BEGIN PGP SIGNATURE-----",
                b"",
                base64.encodebytes(body).strip(),
                b"-----END PGP SIGNATURE-----",
                b"",
            )
        )

    def _text_signature(self, text: bytes) -> bytes:
        return packet(SIGNATURE_PACKET, self._signature(TEXT_SIGNATURE, text))

    def _hashed_key(self) -> bytes:
        return b"\x99" + struct.pack(">H", len(self.public)) + self.public

    def _signature(self, kind: int, subject: bytes) -> bytes:
        fingerprint = hashlib.sha1(self._hashed_key()).digest()
        hashed = subpacket(2, struct.pack(">I", self.created)) + subpacket(
            33, b"\x04" + fingerprint
        )
        if kind == SELF_SIGNATURE:
            hashed += subpacket(27, b"\x03")  # may certify and sign
            hashed += subpacket(9, struct.pack(">I", self.lifetime))
        head = struct.pack(">BBBBH", 4, kind, RSA, SHA256, len(hashed)) + hashed
        trailer = struct.pack(">BBI", 4, 0xFF, len(head))
        digest = hashlib.sha256(subject + head + trailer).digest()
        issuer = subpacket(16, fingerprint[-8:])
        return head + struct.pack(">H", len(issuer)) + issuer + digest[:2] + mpi(self._rsa(digest))

    def _rsa(self, digest: bytes) -> int:
        size = (self.modulus.bit_length() + 7) // 8
        tail = b"\0" + SHA256_INFO + digest
        padded = b"\0\1" + b"\xff" * (size - 2 - len(tail)) + tail
        return pow(int.from_bytes(padded), self.secret, self.modulus)


def make_key(name: str) -> Key:
    """The same key for the same name, every time."""
    source = random.Random(name)
    p, q = prime(source), prime(source)
    secret = pow(EXPONENT, -1, (p - 1) * (q - 1))
    return Key(p * q, secret, f"{name} <{name}@test.example>")


def prime(source: random.Random) -> int:
    while True:
        candidate = source.getrandbits(PRIME_BITS) | 1 | 3 << (PRIME_BITS - 2)
        if all(candidate % small for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)) and all(
            pow(base, candidate - 1, candidate) == 1 for base in (2, 3, 5, 7)
        ):
            return candidate


def mpi(number: int) -> bytes:
    size = number.bit_length()
    return struct.pack(">H", size) + number.to_bytes((size + 7) // 8)


def packet(tag: int, body: bytes) -> bytes:
    return struct.pack(">BBI", 0xC0 | tag, 0xFF, len(body)) + body


def subpacket(kind: int, body: bytes) -> bytes:
    return struct.pack(">BB", 1 + len(body), kind) + body
