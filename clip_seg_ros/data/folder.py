# SPDX-License-Identifier: Apache-2.0
"""A user's own images, masks and phrases: a folder with a table that says which belong together.

    my_data/
      phrases.csv             the table, with the columns image, mask and phrase
      images/desk.jpg         images, JPEG or PNG
      masks/desk_cup.png      masks of the image's size, grey or with a palette: 0 is background, all else the object

    image,mask,phrase
    images/desk.jpg,masks/desk_cup.png,the red cup
    images/desk.jpg,masks/desk_pens.png,"pens, and the cup that they stand in"
    images/desk.jpg,,a banana

A row is a sample, so that an image may have several masks, and a mask several phrases. A row without a mask says that
the phrase names nothing in the image. Paths are relative to the folder of the table.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_seg_ros.data.samples import DataError, ReferringSample, labels_size, read_labels, read_rgb, rgb_size

TABLE = "phrases.csv"
COLUMNS = ("image", "mask", "phrase")
_SHOWN_PROBLEMS = 10
_SIZES_DIFFER = "{} is {} x {} pixels and {} is {} x {}; a mask must be as large as its picture"


@dataclass(frozen=True)
class _Row:
    number: int
    """The line of the table, from 1, where the row ends; the header is line 1."""
    image: str
    mask: str
    """The path of the mask; empty if the phrase names nothing in the image."""
    phrase: str


class PhraseFolder:
    """The samples of a folder, one for each row of its table."""

    def __init__(self, root: Path) -> None:
        """Reads the table and checks that all files exist and that masks have the size of their images.

        Raises:
            DataError: The folder or its table is missing, or rows are wrong; the message names the rows, up to ten at
                once, so that they can be corrected together.
        """
        self._root = Path(root)
        self._table = self._root / TABLE
        if not self._table.is_file():
            what = f"{self._table} is missing" if self._root.is_dir() else f"there is no folder {self._root}"
            raise DataError(
                f"{what}: a data set of your own is a folder with {TABLE} (columns image, mask and phrase), "
                "images/ and masks/"
            )
        self._rows = _read_table(self._table)
        problems = [f"line {row.number}: {problem}" for row in self._rows for problem in self._problems(row)]
        if problems:
            shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
            more = len(problems) - _SHOWN_PROBLEMS
            raise DataError(f"{self._table}:\n  {shown}" + (f"\n  and {more} more" if more > 0 else ""))
        if not self._rows:
            raise DataError(f"{self._table} has a header and no rows: add one line for each phrase")
        self.phrases = tuple(row.phrase for row in self._rows)
        """The phrase of each sample."""
        self.pictures = tuple(Path(row.image).as_posix() for row in self._rows)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads a sample, named "images/desk.jpg:2" for the row on line 2.

        Raises:
            DataError: The image or the mask cannot be read, or they differ in size; the message names the row.
        """
        row = self._rows[index]
        try:
            rgb = read_rgb(self._root / row.image)
            mask = np.zeros(rgb.shape[:2], bool)
            if row.mask:
                mask = read_labels(self._root / row.mask) != 0
        except DataError as error:
            raise DataError(f"{self._table}, line {row.number}: {error}") from error
        if mask.shape != rgb.shape[:2]:
            sizes = _SIZES_DIFFER.format(row.mask, *mask.shape[::-1], row.image, *rgb.shape[1::-1])
            raise DataError(f"{self._table}, line {row.number}: {sizes}")
        return ReferringSample(rgb, row.phrase, mask, f"{row.image}:{row.number}")

    def _problems(self, row: _Row) -> list[str]:
        problems = []
        if not row.phrase:
            problems.append("the phrase is empty")
        if not row.image:
            problems.append("the image is empty")
        elif not (self._root / row.image).is_file():
            problems.append(self._missing("image", row.image, "images"))
        if row.mask and Path(row.mask).suffix.lower() != ".png":
            problems.append(f"the mask {row.mask} is no PNG; other formats change its values when they are saved")
        elif row.mask and not (self._root / row.mask).is_file():
            problems.append(self._missing("mask", row.mask, "masks"))
        if problems:
            return problems
        try:
            size = rgb_size(self._root / row.image)
            if row.mask and (other := labels_size(self._root / row.mask)) != size:
                problems.append(_SIZES_DIFFER.format(row.mask, *other, row.image, *size))
        except DataError as error:
            problems.append(str(error))
        return problems

    def _missing(self, what: str, name: str, folder: str) -> str:
        problem = f"there is no {what} {name} in {self._root}"
        if (self._root / folder / name).is_file():
            return f"{problem}; write {folder}/{name}"
        return problem


def _read_table(path: Path) -> list[_Row]:
    """Returns the rows below the header. Empty lines do not count; further columns may hold notes."""
    try:
        # "utf-8-sig" also accepts the byte order mark that spreadsheet programs write.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if missing := [column for column in COLUMNS if column not in header]:
                raise DataError(
                    f"{path} has no column {' and no column '.join(missing)}: its first line must be "
                    f"{','.join(COLUMNS)}, with commas, and is {','.join(header) or 'empty'}"
                )
            reader.fieldnames = header
            rows = []
            for cells in reader:
                if None in cells or None in cells.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: the row must have {len(header)} cells; a phrase with a comma "
                        'in it goes in quotes: "a cup, half full"'
                    )
                rows.append(_Row(reader.line_num, *(cells[column].strip() for column in COLUMNS)))
            return rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({error.reason}): save it as CSV with UTF-8 encoding") from error
    except csv.Error as error:
        # This is the last complete row, because an open quote includes all lines below it.
        raise DataError(f"{path}, in the row after line {reader.line_num}: {error}; is a quote left open?") from error
