"""Bytes become the text their author wrote, whatever encoding he used."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragcore.adapters.docling import encodings
from ragcore.errors import UnsupportedFormat

RUSSIAN = (
    "Договор аренды нежилого помещения № 17. Арендодатель передаёт, а Арендатор принимает во "
    "временное пользование помещение общей площадью 84 кв. м, расположенное в городе Казани."
)
UKRAINIAN = "Київ — столиця України. Її населення їсть ґречні вареники і п'є узвар щодня."
FRENCH = "Le garçon a mangé à l'école près de la forêt ; où étiez-vous l'été dernier, hélas ?"
POLISH = (
    "Zażółć gęślą jaźń. Pójdźże, kiń tę chmurność w głąb flaszy. Spółka z ograniczoną "
    "odpowiedzialnością złożyła wniosek o wpis do rejestru przedsiębiorców."
)
RUSSIAN_WORDS = RUSSIAN.split()


@pytest.mark.parametrize(
    "encoding", ["utf-8", "cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic"]
)
def test_russian_is_read_in_every_encoding_it_was_ever_written_in(encoding: str) -> None:
    text = RUSSIAN.replace("№", "N")  # some of them lack the sign
    assert encodings.decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866", "iso8859-5"])
@pytest.mark.parametrize(
    "text",
    [
        RUSSIAN.replace("№", "N").upper(),
        "ПРИКАЗ О НАЗНАЧЕНИИ СМОТРИТЕЛЯ МАЯКА",
        "Договор аренды N N общей общей общей общей",
        "аренды аренды аренды аренды аренды аренды общей м,",
    ],
)
def test_capitals_and_words_said_again_do_not_mislead(text: str, encoding: str) -> None:
    assert encodings.decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("text", [RUSSIAN, FRENCH])
def test_wide_encodings_are_read_with_and_without_a_mark(encoding: str, text: str) -> None:
    if encoding in ("utf-16-le", "utf-16-be") and text is FRENCH:
        text = text.replace("é", "e")
    assert encodings.decode(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (UKRAINIAN, "cp1251"),
        (UKRAINIAN.replace("—", "-"), "koi8-u"),
        (FRENCH, "cp1252"),
        (FRENCH, "iso8859-1"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859-2"),
        ("Türkçe: ağır işçi, İstanbul'da yaşıyor ve çalışıyor.", "cp1254"),
        ("Größe, Öl und Straße – „schön“ gesagt.", "cp1252"),
        (
            "これは日本語の文章です。文字コードを正しく判定できるかどうかを試しています。",
            "shift_jis",
        ),
        ("这是一个用来测试编码检测的中文句子,希望它能够被正确识别。", "gb18030"),
    ],
)
def test_other_alphabets_survive(text: str, encoding: str) -> None:
    assert encodings.decode(text.encode(encoding)).text == text


@given(st.lists(st.sampled_from(RUSSIAN_WORDS), min_size=8, max_size=60), st.sampled_from(
    ["cp1251", "koi8-r", "cp866", "iso8859-5"]))  # fmt: skip
def test_any_russian_sentence_survives(words: list[str], encoding: str) -> None:
    text = " ".join(words).replace("№", "N")
    assume(sum(character.isalpha() for character in text) > 30)
    assert encodings.decode(text.encode(encoding)).text == text


@given(st.text())
def test_valid_utf8_is_never_taken_for_something_else(text: str) -> None:
    data = ("начало " + text + " конец").encode("utf-8", errors="ignore")
    controls = sum(byte < 9 or 13 < byte < 32 for byte in data)
    assume(controls < len(data) * 0.05)
    assert encodings.detect(data)[0] == "utf-8"


@given(st.text())
def test_clean_text_has_nothing_postgresql_refuses(text: str) -> None:
    cleaned = encodings.clean(text)
    assert "\x00" not in cleaned.text
    cleaned.text.encode("utf-8")
    assert encodings.clean(cleaned.text).text == cleaned.text


def test_dropped_and_replaced_characters_are_counted() -> None:
    assert encodings.decode(b"a\x00b\x07c \xef\xbf\xbd").replaced == 3


def test_a_few_destroyed_bytes_do_not_turn_utf8_into_mojibake() -> None:
    data = bytearray(RUSSIAN.encode())
    data[40] = 0xFF
    decoded = encodings.decode(bytes(data))
    assert decoded.encoding == "utf-8"
    assert decoded.replaced > 0
    assert "Арендатор принимает" in decoded.text


def test_a_declared_encoding_is_believed_when_it_fits() -> None:
    greek = "Η Αθήνα είναι η πρωτεύουσα"
    assert encodings.decode(greek.encode("iso8859-7"), declared="iso-8859-7").text == greek


def test_a_western_declaration_does_not_hide_russian() -> None:
    assert encodings.decode(RUSSIAN.encode("cp1251"), declared="iso-8859-1").text == RUSSIAN


@pytest.mark.parametrize("declared", ["klingon", "utf-16", "rot13", "punycode", "\x00", "utf-8"])
def test_an_absurd_or_wrong_declaration_is_ignored(declared: str) -> None:
    assert encodings.decode(RUSSIAN.encode("cp1251"), declared=declared).text == RUSSIAN


def test_a_handful_of_strange_bytes_is_counted_as_damage() -> None:
    decoded = encodings.decode(b"The harbour master \xff\xfe\xc3 records the tide.")
    assert decoded.encoding == "utf-8"
    assert decoded.replaced == 3


def test_quotation_marks_survive_a_latin_1_declaration() -> None:
    text = "“Größe”, said he – “and Öl”"
    assert encodings.decode(text.encode("cp1252"), declared="ISO-8859-1").text == text


def test_one_accent_is_enough_for_a_western_text() -> None:
    assert encodings.decode("Le café du port".encode("cp1252")).text == "Le café du port"


def test_random_bytes_are_no_text() -> None:
    with pytest.raises(UnsupportedFormat):
        encodings.decode(bytes(range(256)) * 20)


def test_line_ends_become_one_kind() -> None:
    assert encodings.clean("a\r\nb\rc\fd").text == "a\nb\nc\n\nd"
