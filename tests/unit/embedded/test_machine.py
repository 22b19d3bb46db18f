import os
import socket
from pathlib import Path

import pytest

from ragcore.embedded import machine
from ragcore.embedded.machine import Account
from ragcore.errors import MissingExtra, NotConfigured, UnsupportedMachine

STRANGER = Account("stranger", 54321, 54321)


def test_a_processor_without_avx2_is_refused(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse4_2 avx\n")
    with pytest.raises(UnsupportedMachine, match="AVX2"):
        machine.check_machine(cpuinfo=cpuinfo)


def test_another_architecture_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnsupportedMachine, match=r"'linux aarch64'.*RAGCORE_DATABASE_URL"):
        machine.check_machine()


def test_a_missing_package_names_the_command_that_adds_it() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'ragcore\[embedded\]'"):
        machine.package_directory("no_such_package_of_ours")


def test_a_file_in_a_closed_directory_can_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "closed" / "file"
    file.parent.mkdir()
    file.write_text("x")
    file.chmod(0o644)
    file.parent.chmod(0o700)
    assert not machine.can_read(STRANGER, file)


def test_a_file_needs_its_own_read_right() -> None:
    assert machine.can_read(STRANGER, Path("/etc/passwd"))
    assert machine.can_read(None, Path("/etc/passwd"))


def test_readable_programs_are_used_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("x")
    root = machine.readable_programs(None, tmp_path, [Path("program")], tmp_path / "copies")
    assert root == tmp_path
    assert not (tmp_path / "copies").exists()


def test_unreadable_programs_are_copied_once_and_again_after_an_upgrade(tmp_path: Path) -> None:
    hidden, copies = tmp_path / "hidden", tmp_path / "copies"
    program = hidden / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("one")
    program.chmod(0o700)
    hidden.chmod(0o700)
    parts = [Path("bin/program")]
    first = machine.readable_programs(STRANGER, hidden, parts, copies)
    assert (first / "bin" / "program").read_text() == "one"
    assert (first / "bin" / "program").stat().st_mode & 0o777 == 0o755
    assert machine.readable_programs(STRANGER, hidden, parts, copies) == first
    program.write_text("second")
    second = machine.readable_programs(STRANGER, hidden, parts, copies)
    assert (second / "bin" / "program").read_text() == "second"


def test_a_half_made_copy_is_made_again(tmp_path: Path) -> None:
    hidden, copies = tmp_path / "hidden", tmp_path / "copies"
    hidden.mkdir(mode=0o700)
    (hidden / "program").write_text("whole")
    name = machine._copy_name(hidden / "program")
    (copies / f".{name}.new").mkdir(parents=True)
    (copies / f".{name}.new" / "program").write_text("ha")
    copy = machine.readable_programs(STRANGER, hidden, [Path("program")], copies)
    assert (copy / "program").read_text() == "whole"
    assert [path.name for path in copies.iterdir()] == [name]


def test_the_preferred_port_is_kept_while_it_is_free() -> None:
    port = machine.free_port(None)
    assert machine.free_port(port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert machine.free_port(port) != port


def test_a_new_data_directory_is_closed_to_others(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    machine.make_data_directory(directory)
    assert directory.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_place_where_no_data_directory_can_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    for place in (file, file / "data", Path("/proc/ragcore")):
        with pytest.raises(NotConfigured, match=str(place)):
            machine.make_data_directory(place)
