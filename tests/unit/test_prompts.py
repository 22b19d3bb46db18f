from pathlib import Path

import pytest

from ragcore.adapters.prompts import FilePrompts
from ragcore.errors import NotConfigured


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
