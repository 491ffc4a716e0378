"""``python -m edgeprune.schemas``: write the schema files anew."""

from __future__ import annotations

from edgeprune.files import write_json
from edgeprune.schemas import make_schemas, schema_path

if __name__ == "__main__":
    for name, schema in make_schemas().items():
        write_json(schema_path(name), schema)
