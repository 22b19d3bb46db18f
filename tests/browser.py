"""The machine's own Chromium, for pictures of the real thing in the documentation."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Page, async_playwright

from conftest import REPOSITORY

IMAGES = REPOSITORY / "docs/images"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_COLORS = 128
"""Of a picture that is kept: enough for a page, at a third of the size."""


@asynccontextmanager
async def chromium_page(*, width: int = 1280, height: int = 800) -> AsyncIterator[Page]:
    """Open an empty page in a browser of the test's own; without Chromium the test is skipped."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield await browser.new_page(viewport={"width": width, "height": height})
        finally:
            await browser.close()


async def keep_picture(page: Page, name: str) -> Path:
    """Take a picture of the page for docs/images, small enough for a repository."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    await page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(_COLORS).save(path, optimize=True)
    return path
