import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ragcore.adapters.prompts import FilePrompts, ManagedPrompts
from ragcore.errors import NotConfigured, Unavailable


def write(directory: Path, name: str, text: str = "Mine. {boundary}") -> None:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_shipped_prompts_are_in_both_languages_and_english_for_the_others() -> None:
    prompts = FilePrompts.read()
    for kind in ("answer", "condense"):
        english = prompts.find(kind, language="en", collection="reports")  # type: ignore[arg-type]
        russian = prompts.find(kind, language="ru", collection=None)  # type: ignore[arg-type]
        assert english != russian
        for language in ("de", None):
            assert prompts.find(kind, language=language, collection=None) == english  # type: ignore[arg-type]


def test_a_collections_own_prompt_goes_before_the_general_and_the_shipped(tmp_path: Path) -> None:
    write(tmp_path, "answer.ru.md", "Всем. {boundary}\n")
    write(tmp_path, "reports/answer.ru.md", "Отчётам. {boundary}")
    write(tmp_path, "reports/answer.de.md", "Den Berichten. {boundary}")
    write(tmp_path, "README.txt", "not a prompt")
    prompts, shipped = FilePrompts.read(tmp_path), FilePrompts.read()

    def found(language: str, collection: str | None) -> str:
        return prompts.find("answer", language=language, collection=collection)

    assert found("ru", None) == found("ru", "city") == "Всем. {boundary}"
    assert found("ru", "reports") == "Отчётам. {boundary}"
    assert found("de", "reports") == "Den Berichten. {boundary}"
    english = shipped.find("answer", language="en", collection=None)
    assert found("en", "reports") == found("de", None) == english


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("answer.ru.md", "It does not say where the quotations are."),
        ("answer.ru.md", ""),
        ("reports/condense.en.md", "{boundary}" + "x" * 9000),
        ("answr.ru.md", "{boundary}"),
        ("NOT A NAME/answer.ru.md", "{boundary}"),
    ],
)
def test_a_prompt_that_can_not_be_used_is_refused_by_its_file(
    tmp_path: Path, name: str, text: str
) -> None:
    write(tmp_path, name, text)
    with pytest.raises(NotConfigured, match=name.split("/")[0]):
        FilePrompts.read(tmp_path)


def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answer.en.md").write_bytes(b"\xff\xfe{boundary}")
    with pytest.raises(NotConfigured, match=r"answer\.en\.md"):
        FilePrompts.read(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="PROMPTS_DIR"):
        FilePrompts.read(tmp_path / "nowhere")


# --- prompts that are kept elsewhere ---------------------------------------------------------


class Kept:
    """What is kept elsewhere, and who asked for it."""

    def __init__(self) -> None:
        self.prompts: dict[str, tuple[str, int]] = {}
        self.used: list[tuple[str, int]] = []

    def fetch(self, wanted: Callable[[str], bool]) -> dict[str, tuple[str, int]]:
        return {name: prompt for name, prompt in self.prompts.items() if wanted(name)}

    def over(self, files: FilePrompts) -> ManagedPrompts:
        return ManagedPrompts(files, self.fetch, used=lambda *prompt: self.used.append(prompt))


def test_a_managed_prompt_takes_the_place_of_the_file_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "reports/answer.ru.md", "Отчётам, из файла. {boundary}")
    files, kept = FilePrompts.read(tmp_path), Kept()
    prompts = kept.over(files)

    def found(language: str, collection: str | None) -> str:
        return prompts.find("answer", language=language, collection=collection)

    assert found("ru", "reports") == "Отчётам, из файла. {boundary}"
    kept.prompts = {
        "answer.ru": ("Всем. {boundary}", 3),
        "city/answer.en": ("The city's. {boundary}", 1),
        "answer.russian": ("another's", 1),
        "chat/support/answer.en": ("another's", 1),
    }
    prompts.refresh()
    assert found("ru", None) == "Всем. {boundary}"
    assert found("ru", "reports") == "Отчётам, из файла. {boundary}"  # closer, wherever it is kept
    assert found("en", "city") == "The city's. {boundary}"
    assert found("en", None) == files.find("answer", language="en", collection=None)
    assert kept.used == [("answer.ru", 3), ("city/answer.en", 1)]
    kept.prompts = {}
    prompts.refresh()
    assert found("ru", None) == files.find("answer", language="ru", collection=None)


def test_a_managed_prompt_that_can_not_be_used_leaves_its_version_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = Kept()
    prompts = kept.over(FilePrompts.read())
    kept.prompts = {"answer.en": ("First. {boundary}", 1)}
    prompts.refresh()
    kept.prompts = {"answer.en": ("Without.", 2), "condense.en": ("Without.", 1)}
    prompts.refresh()
    prompts.refresh()
    assert prompts.find("answer", language="en", collection=None) == "First. {boundary}"
    assert "{boundary}" in prompts.find("condense", language="en", collection=None)
    assert [record.message.split(" lacks")[0] for record in caplog.records] == [
        "the prompt 'answer.en, version 2'", "the prompt 'condense.en, version 1'"
    ]  # fmt: skip


def test_prompts_stay_as_they_are_while_the_place_they_are_kept_at_is_away() -> None:
    kept, rounds = Kept(), threading.Semaphore(0)

    def fetch(wanted: Callable[[str], bool]) -> dict[str, tuple[str, int]]:
        rounds.release()
        if not kept.prompts:
            raise Unavailable("away")
        return kept.fetch(wanted)

    prompts = ManagedPrompts(FilePrompts.read(), fetch, used=lambda *_: None)
    kept.prompts = {"answer.en": ("Kept. {boundary}", 1)}
    prompts.refresh()
    kept.prompts = {}
    prompts.keep_fresh(every_seconds=0.001)
    for _ in range(4):
        rounds.acquire()
    prompts.close()
    assert prompts.find("answer", language="en", collection=None) == "Kept. {boundary}"
