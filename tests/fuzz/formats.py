"""Every format that is given to regard, by its name in the table."""

from __future__ import annotations

from tests.fuzz import models, pictures, tables
from tests.fuzz.worker import Format

FORMATS: dict[str, Format] = {**pictures.FORMATS, **models.FORMATS, **tables.FORMATS}
