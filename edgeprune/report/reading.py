"""How report.json is read from a run folder, or from wherever a team keeps it."""

from __future__ import annotations

import json
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.report.schema import Report, parse

NAME = "report.json"
SCHEMA_VERSION = 1


def read_report(path: str | Path) -> Report:
    """The report of a build.

    Args:
        path: a run folder, or a report.json under any name.

    Raises:
        UsageError: there is none, or it is no report.json that this edgeprune reads.
    """
    place = Path(path)
    file = place / NAME if place.is_dir() else place
    try:
        document = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"There is no report to read: {file}: {error.strerror}.",
            expected="the run folder of a finished build, or its report.json.",
            fix=f"this is the folder of a search: what it picked is in {place / 'best'}, all trials in its report.html."
            if (place / "search.json").is_file()
            else None,
        ) from None
    except (ValueError, RecursionError):  # the latter: nested deeper than anything that a build writes
        raise _refused(file, "it is not JSON, or cut off") from None
    if not isinstance(document, dict) or "schema_version" not in document or "variants" not in document:
        raise _refused(file, "it is the JSON of something else")
    if document["schema_version"] != SCHEMA_VERSION:
        raise _refused(file, f"its schema_version is {document['schema_version']!r}")
    try:
        return parse(document)
    except ValueError as error:
        raise _refused(file, str(error).splitlines()[1].strip()) from None


def _refused(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file} is not a report that this edgeprune reads: {why}.",
        expected=f"the report.json (schema_version {SCHEMA_VERSION}) that `edgeprune build` writes.",
        fix="build once with this edgeprune, and use the report.json of that run folder.",
    )
