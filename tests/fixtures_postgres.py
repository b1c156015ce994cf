"""A real PostgreSQL, started once per test process by the first test that needs it; a new database for each test.

    def test_something(postgres_url):
        with AnswerDatabase.open(postgres_url) as database: ...

Without PostgreSQL these tests are skipped; with ODKERAS_REQUIRE_POSTGRES=1 they fail.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from odkeras.process import open_listener
from odkeras.web.database import AnswerDatabase

USER = "odkeras"
PASSWORD = "very-secret-1234"
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
_RUNUSER = shutil.which("runuser") or "runuser"  # now: tests change the PATH
_HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass
class PostgresServer:
    """A running server.

    Args:
        programs: the folder of `pg_ctl`.
        folder: holds the data and the Unix socket.
        port: of 127.0.0.1, where the password is asked for. The socket's users are trusted.
    """

    programs: Path
    folder: Path
    port: int
    names: Iterator[int]

    def url(self, database: str, *, over_tcp: bool = False, user: str = USER) -> str:
        if over_tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def new_database(self, template: str = "template1") -> str:
        """The name of a new database."""
        name = f"test_{next(self.names)}"
        self.sql(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {template}")
        return name

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        import psycopg

        with psycopg.connect(self.url(database, user="postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def start(self) -> None:
        options = f"-k {self.folder} -p {self.port} -c listen_addresses=127.0.0.1"
        options += "".join(f" -c {name}={value}" for name, value in _SETTINGS.items())
        log = self.folder / "log"
        self._run("pg_ctl", "start", "--wait", f"--pgdata={self._data}", f"--log={log}", "--options", options)

    def stop(self) -> None:
        """End the server at once, as if its machine had lost power."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={self._data}")

    def create(self) -> None:
        self._run(
            "initdb", f"--pgdata={self._data}", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"
        )
        (self._data / "pg_hba.conf").write_text(_HBA)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        as_other = [_RUNUSER, "-u", _other_user(), "--"] if os.geteuid() == 0 else []  # it refuses to be root
        with (self.folder / f"{program}.out").open("w+") as output:  # a server would keep a pipe open
            command = [*as_other, str(self.programs / program), *arguments]
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, timeout=60)
            output.seek(0)
            assert done.returncode == 0, output.read()


def _other_user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _missing() -> str:
    if importlib.util.find_spec("psycopg") is None or importlib.util.find_spec("sqlalchemy") is None:
        return "the extra `postgres` of odkeras"
    return "" if _find_programs() is not None else "PostgreSQL's server; `make postgres` installs it"


def _find_programs() -> Path | None:
    on_path = shutil.which("pg_ctl")
    found = [path for place in _PLACES for path in Path("/").glob(place[1:]) if (path / "initdb").is_file()]
    return max(found, default=None) if on_path is None else Path(on_path).resolve().parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if missing := _missing():
        if os.environ.get("ODKERAS_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")
    programs = _find_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="odkeras-pg-"))  # a socket's path must be short
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    server = PostgresServer(programs, folder, port, itertools.count())
    if os.geteuid() == 0:
        shutil.chown(folder, _other_user())
    try:
        server.create()
        server.start()
        try:
            server.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_with_tables(postgres_server: PostgresServer) -> str:
    """The name of a database with the tables and without answers. Copying it is quicker than creating them."""
    name = postgres_server.new_database()
    AnswerDatabase.open(postgres_server.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_with_tables: str) -> str:
    """The URL of a new database."""
    return postgres_server.url(postgres_server.new_database(postgres_with_tables))
