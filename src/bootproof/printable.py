"""Text of strangers, made fit for a terminal, a log or a page: shown, never obeyed.

The only way in which it gets there, from every room. What a stranger can name is a stranger's text
too: a file, a kernel, a word of the command line.
"""

from __future__ import annotations


def safe(text: str, also: str = "\t") -> str:
    """`text` as a terminal may show it; of what is not printable only `also` stays as it is."""
    rest = text
    for character in also:
        rest = rest.replace(character, "")
    if rest.isprintable():  # nearly always; to look at each character takes a hundred times as long
        return text
    return "".join(c if c.isprintable() or c in also else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """`text` with everything that would break a line or a terminal escaped."""
    return safe(text, "")


def shown_url(url: str) -> str:
    """`url` without a user's name and password."""
    from urllib.parse import urlsplit  # few commands show one

    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
