"""The image as far as it can be tried without a container engine."""

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from listening import Listener
from ragcore.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()


def variables() -> dict[str, str]:
    """What ENV sets, at build and in the image."""
    lines = [line for line in INSTRUCTIONS if line.startswith("ENV ")]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))


def copied() -> list[str]:
    """Sources of COPY that come from the repository."""
    lines = [line.split() for line in INSTRUCTIONS if line.startswith("COPY ")]
    return [path for line in lines if not line[1].startswith("--from") for path in line[1:-1]]


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert {path.removeprefix("./") for path in copied()} == allowed
    assert all((ROOT / path).exists() for path in copied())


def test_extras_that_are_installed_exist_and_bring_no_torch_to_slim() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (extras,) = re.findall(r"'\.\[(.+?)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys() - {"docling-full"}


def test_every_variable_is_a_setting_and_its_value_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables().items():
        if name.startswith("RAGCORE_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.port == 8000
    assert str(settings.data_dir) == "/var/lib/ragcore"
    assert settings.worker.metrics_port == 9100
    documented = (ROOT / "docs/reference/settings.md").read_text("utf-8")
    ours = {name for name in variables() if name.startswith("RAGCORE_")}
    assert [name for name in ours if f"`{name}`" not in documented] == []


def test_nothing_runs_as_root_and_no_secret_is_set() -> None:
    users = [line.split()[1] for line in INSTRUCTIONS if line.startswith("USER ")]
    assert users == ["10001:10001"]
    secret = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|DATABASE_URL|REDIS_URL")
    assert [name for name in variables() if secret.search(name)] == []


def check(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, DOCKER / "health.py"],
        env={"HEALTH_URL": url, "http_proxy": "http://127.0.0.1:9"},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 0, ""),
        (b"HTTP/1.1 503 No\r\ncontent-length: 8\r\n\r\ndatabase", 1, "answered 503: database"),
    ],
)
async def test_the_health_check_tells_well_from_ill(answer: bytes, code: int, said: str) -> None:
    listener = Listener()
    listener.answers["/health/ready"] = answer
    async with listener.listening():
        with check(listener.url("/health/ready")) as process:
            _, output = await asyncio.to_thread(process.communicate)
    assert (process.returncode, said in output) == (code, True)


async def test_the_health_check_says_that_nobody_answers() -> None:
    listener = Listener()
    async with listener.listening():
        url = listener.url("/health/ready")
    with check(url) as process:
        _, output = await asyncio.to_thread(process.communicate)
    assert process.returncode == 1
    assert "does not answer" in output
