import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ragcore.embedded.run_directory import RunDirectory
from ragcore.errors import NotConfigured, UnsupportedServer


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path, "postgres")
    run.make()
    return run


def test_a_lock_has_one_holder(run: RunDirectory) -> None:
    lock = run.try_lock("supervisor")
    assert lock
    assert run.try_lock("supervisor") is None
    lock.release()
    lock.release()
    again = run.try_lock("supervisor")
    assert again
    again.release()


def test_a_shared_lock_keeps_out_only_who_wants_it_whole(run: RunDirectory) -> None:
    first, second = run.try_lock("users", shared=True), run.try_lock("users", shared=True)
    assert first
    assert second
    assert run.try_lock("users") is None
    first.release()
    assert run.try_lock("users") is None
    second.release()
    whole = run.try_lock("users")
    assert whole
    whole.release()


def test_a_lock_vanishes_with_its_killed_holder(run: RunDirectory) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from ragcore.embedded.run_directory import RunDirectory;"
        f"lock = RunDirectory(Path({str(run.data_dir)!r}), 'postgres').try_lock('users');"
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert run.try_lock("users") is None
        holder.send_signal(signal.SIGKILL)
    lock = run.try_lock("users")
    assert lock
    lock.release()


def test_state_and_secrets_are_their_owners_alone(run: RunDirectory) -> None:
    run.write_state({"url": "secret"})
    password = run.secret()
    files = [path for path in run.data_dir.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    assert run.secret() == password
    assert len(password) >= 32


def test_passwords_differ_between_servers_and_directories(tmp_path: Path) -> None:
    secrets = set()
    for directory in ("a", "b"):
        for server in ("postgres", "valkey"):
            (tmp_path / directory).mkdir(exist_ok=True)
            run = RunDirectory(tmp_path / directory, server)
            run.make()
            secrets.add(run.secret())
    assert len(secrets) == 4


def test_a_failure_reaches_the_users_as_the_same_error(run: RunDirectory) -> None:
    run.raise_failure()
    run.write_failure(UnsupportedServer("made by 'PostgreSQL 15'"))
    with pytest.raises(UnsupportedServer, match="made by 'PostgreSQL 15'"):
        run.raise_failure()
    run.clear()
    run.raise_failure()


def test_the_port_is_remembered_after_the_state_is_cleared(run: RunDirectory) -> None:
    assert run.remembered_port() is None
    run.remember_port(4711)
    run.clear()
    assert run.remembered_port() == 4711


def test_the_log_tail_is_the_end_of_the_log(run: RunDirectory) -> None:
    assert run.log_tail() == ""
    run.log.write_text("".join(f"line {n}\n" for n in range(20)))
    assert run.log_tail(2) == "line 18\nline 19"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotConfigured, match="not yours to write"):
        RunDirectory(tmp_path, "postgres").make()
