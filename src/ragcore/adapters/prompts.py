"""Prompts in files: those that come with ragcore, and an operator's in their place."""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from ragcore.errors import InvalidInput, NotConfigured
from ragcore.ports import PromptKind
from ragcore.steps.identity import checked_collection

_NAME = re.compile(r"(answer|condense|rewrite|rerank)\.([a-z]{2})\.md")
_PLACEHOLDER: Final = "{boundary}"
_MOST_CHARACTERS: Final = 8000
"""Of one prompt; every question pays for it."""

_Key = tuple[str | None, str, str]
"""Collection, None for all of them; kind; language."""


class FilePrompts:
    """`ports.Prompts` from `KIND.LANGUAGE.md`; read once, all of them, by `read`."""

    def __init__(self, prompts: Mapping[_Key, str]) -> None:
        self._prompts = prompts

    @classmethod
    def read(cls, directory: Path | None = None) -> "FilePrompts":
        """Read the shipped prompts, and over them those of the directory.

        `directory/reports/answer.ru.md` is for the collection `reports`, `directory/answer.ru.md`
        for every other one. Raises NotConfigured, naming the file, for a file that can't be used
        or whose name is no prompt's: left out silently it would change answers unnoticed.
        """
        prompts = dict(_read_folder(resources.files("ragcore") / "prompts", None))
        if directory is not None:
            prompts.update(_read_directory(directory))
        return cls(prompts)

    def find(self, kind: PromptKind, *, language: str | None, collection: str | None) -> str:
        for tried in (language, "en"):
            for place in (collection, None):
                found = self._prompts.get((place, kind, tried or "en"))
                if found is not None:
                    return found
        raise AssertionError("the shipped prompts hold every kind in English")


def _read_directory(directory: Path) -> Iterator[tuple[_Key, str]]:
    if not directory.is_dir():
        raise NotConfigured(
            f"there is no folder {str(directory)!r}: correct RAGCORE_GENERATION__PROMPTS_DIR"
        )
    yield from _read_folder(directory, None)
    for folder in sorted(directory.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                collection = checked_collection(folder.name)
            except InvalidInput as error:
                raise NotConfigured(
                    f"{str(folder)!r} can't hold the prompts of a collection: {error}"
                ) from error
            yield from _read_folder(folder, collection)


def _read_folder(folder: Traversable, collection: str | None) -> Iterator[tuple[_Key, str]]:
    for file in folder.iterdir():
        if file.name.endswith(".md") and file.is_file():
            found = _NAME.fullmatch(file.name)
            if found is None:
                raise NotConfigured(
                    f"{str(file)!r} is no prompt: they are named `KIND.LANGUAGE.md`, such as "
                    "`answer.en.md`; kinds are answer, condense, rewrite and rerank"
                )
            yield (collection, found[1], found[2]), _read(file)


def _read(file: Traversable) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"the prompt {str(file)!r} can't be read: {error}") from error
    if _PLACEHOLDER not in text:
        raise NotConfigured(
            f"the prompt {str(file)!r} lacks {_PLACEHOLDER}, without which the model can't tell "
            "quotations from instructions: see the shipped prompts"
        )
    if len(text) > _MOST_CHARACTERS:
        raise NotConfigured(
            f"the prompt {str(file)!r} has {len(text)} characters; {_MOST_CHARACTERS} are the most"
        )
    return text
