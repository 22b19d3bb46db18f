"""Small files of several formats, each with a word that no other file holds."""

import io
import random
import zipfile
from dataclasses import dataclass

from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

_SUBJECTS = ("The keeper", "A pilot", "The harbour master", "Her clerk", "The old crane")
_DEEDS = ("wrote down", "measured", "lost sight of", "repaired", "counted", "sold")
_THINGS = ("seven lanterns", "the north pier", "a brass compass", "forty barrels", "the tide gauge")
_RUSSIAN = (
    "Смотритель зажёг лампу на закате.",
    "Баржа с углём пришла в гавань утром.",
    "Маяк погас в холодную ночь.",
    "Лоцман записал глубину у северного мола.",
)
_LETTERS = "bcdfghjklmnpqrstvwxz"


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of one file, and what is known of them."""

    filename: str
    content: bytes
    marker: str
    """A word that stands in this file and in no other; empty where the file can't be read."""


class Payloads:
    """Makes files from a seed: the same seed gives the same files in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made = 0
        self._prefix = "".join(self._random.choices(_LETTERS, k=4))

    def good(self) -> Payload:
        """A file that can be read: mostly tiny texts, some HTML, Word and PDF."""
        (make,) = self._random.choices((_markdown, _html, _docx, _pdf), weights=(80, 10, 7, 3))
        return make(self._marker(), self._sentences())

    def hostile(self) -> Payload:
        """A file that is taken and can't be read."""
        self._made += 1  # also in its bytes: two of them are two documents
        make = self._random.choice((_blank, _damaged_pdf, _locked_pdf, _cut_docx))
        return make(self._made)

    def long(self, paragraphs: int) -> Payload:
        """A text whose chunks keep a worker busy for a while."""
        marker = self._marker()
        text = "\n\n".join(
            f"{number}. " + " ".join(self._sentences()) for number in range(paragraphs)
        )
        return Payload(f"{marker}.md", f"# {marker}\n\n{text}\n".encode(), marker)

    def _marker(self) -> str:
        self._made += 1
        digits, number = [], self._made
        for _ in range(4):
            number, digit = divmod(number, len(_LETTERS))
            digits.append(_LETTERS[digit])
        return self._prefix + "".join(digits)

    def _sentences(self) -> list[str]:
        choose = self._random.choice
        sentences = [
            f"{choose(_SUBJECTS)} {choose(_DEEDS)} {choose(_THINGS)}."
            for _ in range(self._random.randint(1, 5))
        ]
        return sentences + self._random.sample(_RUSSIAN, k=self._random.choice((0, 0, 1, 3)))


def _markdown(marker: str, sentences: list[str]) -> Payload:
    text = f"# {marker}\n\n" + "\n\n".join(sentences) + "\n"
    return Payload(f"{marker}.md", text.encode(), marker)


def _html(marker: str, sentences: list[str]) -> Payload:
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    page = f"<!doctype html><meta charset=utf-8><h1>{marker}</h1>{paragraphs}"
    return Payload(f"{marker}.html", page.encode(), marker)


def _docx(marker: str, sentences: list[str]) -> Payload:
    return Payload(f"{marker}.docx", _word_file([marker, *sentences]), marker)


def _pdf(marker: str, sentences: list[str]) -> Payload:
    latin = [sentence for sentence in sentences if sentence.isascii()]  # Helvetica has no Cyrillic
    return Payload(f"{marker}.pdf", _pdf_file([marker, *latin]), marker)


def _blank(number: int) -> Payload:
    return Payload("blank.txt", b" \n" * number, "")


def _damaged_pdf(number: int) -> Payload:
    return Payload("damaged.pdf", f"%PDF-1.7\n{number} no object follows\n".encode(), "")


def _locked_pdf(number: int) -> Payload:
    return Payload("locked.pdf", _pdf_file([f"Secret {number}"], password="open sesame"), "")


def _cut_docx(number: int) -> Payload:
    whole = _word_file([f"Never read {number}"])
    return Payload("cut.docx", whole[: len(whole) // 2], "")


def _word_file(paragraphs: list[str]) -> bytes:
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    parts = {
        "[Content_Types].xml": (
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels"'
            ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/word/document.xml" ContentType="application/'
            'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
        ),
        "_rels/.rels": (
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="r1" Target="word/document.xml" Type="http://schemas.'
            'openxmlformats.org/officeDocument/2006/relationships/officeDocument"/>'
            "</Relationships>"
        ),
        "word/document.xml": (
            f'<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
        ),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def _pdf_file(lines: list[str], *, password: str | None = None) -> bytes:
    file = io.BytesIO()
    encryption = StandardEncryption(password) if password else None
    canvas = Canvas(file, invariant=1, encrypt=encryption)
    for number, line in enumerate(lines):
        canvas.drawString(72, 760 - 18 * number, line)
    canvas.save()
    return file.getvalue()
