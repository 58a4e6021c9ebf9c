"""What a terminal shows after it was sent some bytes: of the control codes, those that we use."""

from __future__ import annotations

import codecs
import re

_TOKEN = re.compile(r"\x1b\[(\??)(\d*)[0-9;]*([A-Za-z])|\r|\n|[^\x1b\r\n]+")
_UNFINISHED = re.compile(r"\x1b(\[\??[0-9;]*)?")


class Screen:
    """Any number of lines of `width` columns; longer ones wrap. Fails on codes it does not know."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._row = self._column = 0
        self._lines = [""]
        self.cursor_shown = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._lines]

    def send(self, data: bytes) -> None:
        text, self._rest = self._rest + self._decoder.decode(data), ""
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None:
                self._rest = text[position:]
                assert _UNFINISHED.fullmatch(self._rest), self._rest
                return
            position = token.end()
            if token[3]:
                self._control(token[1], int(token[2] or 1), token[3])
            elif token[0] == "\r":
                self._column = 0
            elif token[0] == "\n":
                self._down()
            else:
                self._write(token[0])

    def _control(self, private: str, number: int, code: str) -> None:
        if private:
            assert (number, code in "lh") == (25, True)
            self.cursor_shown = code == "h"
        elif code == "A":
            self._row -= number
        elif code == "K":
            assert number == 2
            self._lines[self._row] = ""
        else:
            assert code == "m", code

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append("")

    def _write(self, text: str) -> None:
        for character in text:
            if self._column == self._width:
                self._column = 0
                self._down()
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1
