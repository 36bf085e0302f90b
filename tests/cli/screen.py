"""What a terminal shows: enough of one to read what prompt_toolkit draws."""

from __future__ import annotations

import re

# So wide that what a test looks for stands on one line, whatever the folder of the test is called.
ROWS, COLUMNS = 40, 250

_PIECES = re.compile(r"\x1b\[(?P<private>\??)(?P<numbers>[\d;]*)(?P<final>[A-Za-z])|(?P<other>.)", re.DOTALL)


class Screen:
    """Rows of text, those that have been scrolled away too. What it cannot read it shows as it came."""

    def __init__(self) -> None:
        self.rows: list[str] = [""]
        self._row = self._column = 0
        self._wraps = True

    @classmethod
    def of(cls, written: str) -> Screen:
        screen = cls()
        for piece in _PIECES.finditer(written):
            if piece["other"] is not None:
                screen._put(piece["other"])
            elif piece["private"]:
                if piece["numbers"] == "7":
                    screen._wraps = piece["final"] == "h"
            else:
                screen._control(piece["final"], int(piece["numbers"] or 0) if piece["numbers"].isdigit() else 0)
        return screen

    def _put(self, character: str) -> None:
        match character:
            case "\r":
                self._column = 0
            case "\n":
                self._down()
            case "\b":
                self._column = max(0, self._column - 1)
            case _:
                if self._column >= COLUMNS and self._wraps:
                    self._column = 0
                    self._down()
                column = min(self._column, COLUMNS - 1)
                row = self.rows[self._row].ljust(column)
                self.rows[self._row] = row[:column] + character + row[column + 1 :]
                self._column = column + 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.rows):
            self.rows.append("")

    def _control(self, final: str, number: int) -> None:
        match final:
            case "A":
                self._row = max(0, self._row - max(1, number))
            case "B":
                self._row = min(len(self.rows) - 1, self._row + max(1, number))
            case "C":
                self._column = min(COLUMNS - 1, self._column + max(1, number))
            case "D":
                self._column = max(0, min(self._column, COLUMNS - 1) - max(1, number))
            case "K" | "J":
                assert number == 0, "only what is behind the cursor is erased"
                self.rows[self._row] = self.rows[self._row][: self._column]
                if final == "J":
                    del self.rows[self._row + 1 :]
            case "m":
                pass  # how letters look
            case _:
                raise AssertionError(f"an unknown control: CSI {number} {final}")
