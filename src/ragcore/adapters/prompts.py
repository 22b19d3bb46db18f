"""Prompts in files: those that come with ragcore, and an operator's in their place.

An operator may also manage prompts elsewhere; files then are what there is without them.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, get_args

from ragcore.errors import InvalidInput, NotConfigured, RagError
from ragcore.ports import PromptKind
from ragcore.steps.identity import checked_collection

_KINDS: Final = "|".join(get_args(PromptKind))
_NAME = re.compile(rf"({_KINDS})\.([a-z]{{2}})\.md")
_MANAGED_NAME = re.compile(rf"(?:([a-z0-9_-]{{1,48}})/)?({_KINDS})\.([a-z]{{2}})")
_PLACEHOLDER: Final = "{boundary}"
_MOST_CHARACTERS: Final = 8000
"""Of one prompt; every question pays for it."""

_Key = tuple[str | None, str, str]
"""Collection, None for all of them; kind; language."""

log = logging.getLogger(__name__)


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
        for key in _tried(kind, language, collection):
            if (found := self.get(key)) is not None:
                return found
        raise AssertionError("the shipped prompts hold every kind in English")

    def get(self, key: _Key) -> str | None:
        """Return the prompt of exactly this kind, language and collection."""
        return self._prompts.get(key)


@dataclass(frozen=True, slots=True)
class _Managed:
    name: str
    version: int
    text: str


Fetch = Callable[[Callable[[str], bool]], Mapping[str, tuple[str, int]]]
"""Returns text and version of the prompts whose names are wanted. Blocks. Raises RagError."""


class ManagedPrompts:
    """`ports.Prompts` that are kept elsewhere, over those in files.

    They are named like the files, `answer.ru` and `reports/answer.ru`, and each takes the place of
    the file of that name: a prompt for a collection goes before one for all, wherever it is kept.
    A thread of their own fetches them, so nobody waits for the place they are kept at: until it
    answers for the first time, files are all there is, and while it is away, what it said last.
    """

    def __init__(
        self, files: FilePrompts, fetch: Fetch, *, used: Callable[[str, int], None]
    ) -> None:
        """`used` is told name and version of each prompt that is looked up."""
        self._files = files
        self._fetch = fetch
        self._used = used
        self._managed: Mapping[_Key, _Managed] = {}
        self._said: set[str] = set()
        self._closing = threading.Event()

    def find(self, kind: PromptKind, *, language: str | None, collection: str | None) -> str:
        managed = self._managed
        for key in _tried(kind, language, collection):
            if (found := managed.get(key)) is not None:
                self._used(found.name, found.version)
                return found.text
            if (text := self._files.get(key)) is not None:
                return text
        raise AssertionError("the shipped prompts hold every kind in English")

    def keep_fresh(self, *, every_seconds: float) -> None:
        """Fetch them in the background, now and again and again until `close`."""
        threading.Thread(
            target=self._keep_fresh, args=(every_seconds,), name="prompts", daemon=True
        ).start()

    def close(self) -> None:
        """Fetch no more; does not wait for a fetch that is under way."""
        self._closing.set()

    def _keep_fresh(self, every_seconds: float) -> None:
        while not self._closing.is_set():
            try:
                self.refresh()
            except RagError as error:
                self._say_once(f"prompts stay as they are: {error}")
            except Exception:  # the edge of this thread, which would end unseen otherwise
                log.exception("prompts could not be fetched")
            self._closing.wait(every_seconds)

    def refresh(self) -> None:
        """Fetch them once; all are replaced together.

        One that can't be used is left out, and said so in the log: its version before goes on
        until the next start. Raises what fetching raises.
        """
        fetched = self._fetch(lambda name: _MANAGED_NAME.fullmatch(name) is not None)
        before = self._managed
        managed = {}
        for name, (text, version) in fetched.items():
            key = _key_of(name)
            try:
                managed[key] = _Managed(name, version, _checked(text, f"{name}, version {version}"))
            except NotConfigured as error:
                self._say_once(str(error))
                if key in before:
                    managed[key] = before[key]
        self._managed = managed

    def _say_once(self, warning: str) -> None:
        if warning not in self._said:
            self._said.add(warning)
            log.warning(warning)


def _tried(kind: str, language: str | None, collection: str | None) -> Iterator[_Key]:
    """Yield where a prompt may be, the closest first."""
    for tried in (language, "en"):
        for place in (collection, None):
            yield place, kind, tried or "en"


def _key_of(name: str) -> _Key:
    found = _MANAGED_NAME.fullmatch(name)
    assert found is not None  # only such are fetched
    return found[1], found[2], found[3]


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
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"the prompt {str(file)!r} can't be read: {error}") from error
    return _checked(text, str(file))


def _checked(text: str, name: str) -> str:
    """Return a prompt that can be used. Raises NotConfigured."""
    text = text.strip()
    if _PLACEHOLDER not in text:
        raise NotConfigured(
            f"the prompt {name!r} lacks {_PLACEHOLDER}, without which the model can't tell "
            "quotations from instructions: see the shipped prompts"
        )
    if len(text) > _MOST_CHARACTERS:
        raise NotConfigured(
            f"the prompt {name!r} has {len(text)} characters; {_MOST_CHARACTERS} are the most"
        )
    return text
