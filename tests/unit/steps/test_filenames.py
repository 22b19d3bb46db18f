import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.steps.filenames import bare_name, filename_in, parameters


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'form-data; name="file"; filename="report.pdf"', "report.pdf"),
        (b"attachment; filename=report.pdf", "report.pdf"),
        ('form-data; filename="Маяк и Вега.pdf"'.encode(), "Маяк и Вега.pdf"),
        ('form-data; filename="Маяк.pdf"'.encode("cp1251"), "Маяк.pdf"),
        (b"attachment; filename*=UTF-8''%D0%9C%D0%B0%D1%8F%D0%BA.pdf", "Маяк.pdf"),
        (b"attachment; filename=\"x.pdf\"; filename*=utf-8'ru'%D0%AF.pdf", "Я.pdf"),
        (b"attachment; FILENAME*=windows-1251''%CC%E0%FF%EA.pdf", "Маяк.pdf"),
        (b"attachment; filename*=nonsense''a%41.pdf", "aA.pdf"),
        (b'form-data; filename="=?utf-8?B?0JzQsNGP0LoucGRm?="', "Маяк.pdf"),
        (b'form-data; filename="=?utf-8?Q?=D0=AF_1.pdf?="', "Я 1.pdf"),
        (b'form-data; filename="=?nonsense?B?YQ==?="', "=?nonsense?B?YQ==?="),
        (rb'form-data; filename="C:\docs\report.pdf"', "report.pdf"),
        (b'form-data; filename="../../etc/passwd"', "passwd"),
        (rb'form-data; filename="a \"b\" c.txt"', 'a "b" c.txt'),
        (b'form-data; filename="a %22b%22 50%.txt"', 'a "b" 50%.txt'),
        (b'form-data; filename="a;b=c.txt"', "a;b=c.txt"),
        (b'form-data; filename=""', ""),
        (b'form-data; name="title"', None),
        (b"", None),
    ],
)
def test_a_name_is_read_in_every_spelling(header: bytes, name: str | None) -> None:
    assert filename_in(header) == name


def test_a_semicolon_in_a_quoted_name_hides_no_parameter() -> None:
    header = b'form-data; filename="a; name=evil"; name="file"'
    assert parameters(header) == {"filename": "a; name=evil", "name": "file"}


@given(st.binary(max_size=200))
def test_no_header_makes_it_fail(junk: bytes) -> None:
    name = filename_in(b"form-data; filename=" + junk)
    assert name is None or "/" not in name


@given(st.text())
def test_a_bare_name_has_no_folders(name: str) -> None:
    assert not {"/", "\\"} & set(bare_name(name))
