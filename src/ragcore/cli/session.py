"""From the environment to open resources, for as long as one command runs."""

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ragcore.cli.output import errors_told, stderr_console
from ragcore.errors import NotConfigured

if TYPE_CHECKING:
    from pydantic import ValidationError

    from ragcore.rag import Rag
    from ragcore.runtime import Runtime
    from ragcore.settings import Settings

Result = TypeVar("Result")


def load_settings() -> "Settings":
    """Read the settings and send logs to stderr. Raises NotConfigured that names the setting.

    A command is no service: unless RAGCORE_LOG_LEVEL asks for more, only warnings are logged.
    """
    import tomllib

    from pydantic import ValidationError

    from ragcore.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        raise NotConfigured(_explain(error)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        file = os.environ.get("RAGCORE_CONFIG_FILE")
        raise NotConfigured(f"the configuration file {file!r} can't be read: {error}") from error
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    return settings


def log_to_stderr(level: str) -> None:
    """Log from this level on. Raises NotConfigured for one that does not exist."""
    try:
        logging.basicConfig(
            stream=sys.stderr,
            level=level.upper(),
            format="%(levelname)s %(name)s: %(message)s",
        )
    except ValueError as error:
        raise NotConfigured(f"RAGCORE_LOG_LEVEL: {error}") from error


def _explain(error: "ValidationError") -> str:
    problems = [
        f"RAGCORE_{'__'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    return "; ".join(problems) + " (docs/reference/settings.md lists every setting)"


@asynccontextmanager
async def opened() -> "AsyncIterator[Rag]":
    """Open a Rag with the settings of the environment, and close it.

    Commands name their collection in each call, not here: opening one makes it, and a question
    to a collection that does not exist shall fail.
    """
    settings = load_settings()
    with stderr_console().status("Opening ragcore …"):
        from ragcore.rag import Rag

        rag = await Rag.open(settings)
    try:
        yield rag
    finally:
        await rag.close()


@asynccontextmanager
async def opened_runtime() -> "AsyncIterator[Runtime]":
    """Open the stores without opening a collection, for looking at them and tidying up.

    So a collection of another embedding model, which a Rag refuses to open, can be deleted.
    """
    settings = load_settings()
    async with AsyncExitStack() as stack:
        with stderr_console().status("Opening ragcore …"):
            from ragcore.runtime import open_runtime

            runtime = await stack.enter_async_context(open_runtime(settings))
        yield runtime


def run_async(main: Callable[[], Coroutine[Any, Any, Result]], *, as_json: bool) -> Result:
    """Run a command's coroutine to its end, telling errors as `errors_told` does."""
    import asyncio  # here and below: `--help` does without it

    with errors_told(as_json=as_json):
        return asyncio.run(main())
