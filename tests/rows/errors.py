"""What may be wrong with a file of rows."""

from __future__ import annotations


class TableError(Exception):
    """One line: the file, the row or object, the field, and what is wrong."""
