"""Make the sample documents: the papers of Veresk Line, a ferry company that does not exist.

    python samples/make_samples.py [FOLDER]

Russian and English; PDF with headings and tables, DOCX, HTML, XLSX, Markdown and a scan without a
text layer. The committed files in samples/documents/ came from here; a test makes them again and
compares what can be read from them. Needs the development dependencies (reportlab, python-docx,
openpyxl, Pillow) and the DejaVu fonts (Debian: fonts-dejavu-core), which the PDF files embed.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import docx
import openpyxl
from openpyxl.styles import Font
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Table,
    TableStyle,
)

FOLDER = Path(__file__).parent / "documents"
FONT_FOLDERS = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu-sans-fonts"),
    Path("/usr/share/fonts/TTF"),
)
AUTHOR = "Veresk Line"
WRITTEN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

Rows = Sequence[Sequence[str]]


def main(folder: Path = FOLDER) -> list[Path]:
    """Write every sample into `folder` and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    _register_fonts()
    paths = []
    for name, make in SAMPLES.items():
        make(folder / name)
        paths.append(folder / name)
    return paths


# --- PDF with headings and tables ----------------------------------------------------------


def timetable_and_fares(path: Path) -> None:
    """English, four pages: one subject a page, two tables."""
    _pdf(
        path,
        title="Timetable, Fares and Conditions 2026",
        story=[
            _title("Veresk Line: Timetable, Fares and Conditions 2026"),
            _heading("1 The company and its ships"),
            _text(
                "Veresk Line carries passengers, cars and mail between Alder Harbour on the "
                "mainland and Skarn Island, 23 kilometres out in the Gulf of Tarn. In summer a "
                "third stop is made at the lighthouse of Grey Holm."
            ),
            _text(
                "Two ships keep the line open. The motor vessel Gannet, built in 1998, takes 180 "
                "passengers and 24 cars. The electric ferry Kittiwake entered service in May 2025; "
                "it takes 240 passengers and 32 cars, and its battery of 3.2 megawatt-hours is "
                "charged in Alder Harbour overnight and for 25 minutes between crossings."
            ),
            _text(
                "A crossing from Alder Harbour to Skarn Island takes 70 minutes aboard Kittiwake "
                "and 85 minutes aboard Gannet. The call at Grey Holm adds 20 minutes."
            ),
            PageBreak(),
            _heading("2 Timetable"),
            _text(
                "The summer timetable runs from 1 May to 30 September, the winter timetable for "
                "the rest of the year. There are no sailings on 1 January."
            ),
            _table(
                [
                    ["Departure", "From", "To", "Summer", "Winter"],
                    ["06:40", "Alder Harbour", "Skarn Island", "daily", "Monday to Friday"],
                    ["08:30", "Skarn Island", "Alder Harbour", "daily", "Monday to Friday"],
                    ["11:15", "Alder Harbour", "Grey Holm", "Saturday, Sunday", "none"],
                    ["13:20", "Grey Holm", "Alder Harbour", "Saturday, Sunday", "none"],
                    ["16:10", "Alder Harbour", "Skarn Island", "daily", "daily"],
                    ["18:05", "Skarn Island", "Alder Harbour", "daily", "daily"],
                ]
            ),
            _text(
                "Boarding closes ten minutes before departure for cars and five minutes before "
                "departure for passengers on foot."
            ),
            PageBreak(),
            _heading("3 Fares"),
            _text("All fares are in crowns, for one crossing, with taxes."),
            _table(
                [
                    ["Ticket", "Adult", "Child 6 to 15", "Resident of Skarn"],
                    ["Alder Harbour to Skarn Island", "145", "60", "40"],
                    ["Alder Harbour to Grey Holm", "190", "80", "95"],
                    ["Car up to 6 metres, with driver", "420", "420", "180"],
                    ["Motorcycle, with rider", "230", "230", "110"],
                    ["Bicycle", "35", "20", "free"],
                ]
            ),
            _text(
                "Children under six travel free of charge. A book of ten tickets costs as much as "
                "eight single ones and is valid for eighteen months."
            ),
            PageBreak(),
            _heading("4 Conditions of carriage"),
            _subheading("4.1 Cancellation by the passenger"),
            _text(
                "A ticket returned at least 48 hours before departure is refunded in full. Between "
                "48 and 6 hours before departure half of the fare is refunded; later than that, "
                "nothing."
            ),
            _subheading("4.2 Cancellation by the company"),
            _text(
                "When a sailing is cancelled because of the weather, the passenger chooses between "
                "the next sailing with free places and a full refund within five working days."
            ),
            _subheading("4.3 Animals"),
            _text(
                "Dogs travel on the open deck and in the aft saloon, on a leash no longer than "
                "1.5 metres. Guide dogs may go everywhere. Cats and birds travel in a closed "
                "carrier."
            ),
            _subheading("4.4 Lost property"),
            _text(
                "Things found on board are kept for 90 days in the office at Alder Harbour, "
                "pier 1, and are then given to the island school."
            ),
        ],
    )


def safety_manual(path: Path) -> None:
    """Russian, three pages: drills, equipment in a table, limits of the weather."""
    _pdf(
        path,
        title="Руководство по безопасности",
        story=[
            _title("Линия «Вереск»: руководство по безопасности"),
            _heading("1 Учения и обязанности"),
            _text(
                "Учебная тревога «Человек за бортом» проводится на каждом судне раз в четырнадцать "
                "дней, пожарная тревога — раз в месяц. Дату, время и замечания старший помощник "
                "записывает в судовой журнал."
            ),
            _text(
                "За исправность спасательных средств отвечает боцман. Он проверяет их каждый "
                "понедельник до первого рейса и докладывает капитану."
            ),
            PageBreak(),
            _heading("2 Спасательные средства"),
            _text(
                "Число спасательных жилетов на судне всегда превышает число пассажирских мест. "
                "Детские жилеты хранятся в красных ящиках у выхода из кормового салона."
            ),
            _table(
                [
                    ["Средство", "«Моевка»", "«Олуша»"],
                    ["Жилеты для взрослых", "264", "198"],
                    ["Детские жилеты", "48", "36"],
                    ["Спасательные плоты на 50 человек", "6", "4"],
                    ["Спасательные круги", "14", "10"],
                    ["Аварийные радиобуи", "2", "1"],
                ]
            ),
            PageBreak(),
            _heading("3 Ограничения по погоде"),
            _text(
                "Выход в рейс запрещён при скорости ветра выше 17 метров в секунду или при высоте "
                "волны более 2,5 метра. Решение принимает капитан, и береговая служба не вправе "
                "его отменить."
            ),
            _text(
                "При видимости менее 500 метров судно идёт со скоростью не выше шести узлов, на "
                "баке выставляется вперёдсмотрящий."
            ),
            _text(
                "О задержке рейса пассажирам сообщают не позднее чем через десять минут после "
                "принятия решения — по громкой связи и на табло причала."
            ),
        ],
    )


def _pdf(path: Path, *, title: str, story: list[Flowable]) -> None:
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=25 * mm,
        rightMargin=25 * mm,
        topMargin=28 * mm,
        bottomMargin=25 * mm,
        title=title,
        author=AUTHOR,
        invariant=True,
    )
    document.build(story, onFirstPage=_footer, onLaterPages=_footer)


def _footer(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont("DejaVu", 8)
    canvas.drawCentredString(A4[0] / 2, 14 * mm, f"{AUTHOR} · {document.page}")


def _title(text: str) -> Flowable:
    return Paragraph(text, _style(18, bold=True, space_after=14))


def _heading(text: str) -> Flowable:
    return Paragraph(text, _style(14, bold=True, space_before=8, space_after=6))


def _subheading(text: str) -> Flowable:
    return Paragraph(text, _style(11, bold=True, space_before=8, space_after=3))


def _text(text: str) -> Flowable:
    return Paragraph(text, _style(10.5, space_after=8))


def _style(
    size: float, *, bold: bool = False, space_before: float = 0, space_after: float = 0
) -> ParagraphStyle:
    return ParagraphStyle(
        name=f"{size}{bold}",
        fontName="DejaVu-Bold" if bold else "DejaVu",
        fontSize=size,
        leading=size * 1.4,
        spaceBefore=space_before,
        spaceAfter=space_after,
    )


def _table(rows: Rows) -> Flowable:
    cells = [
        [Paragraph(cell, _style(9.5, bold=row == 0)) for cell in cells]
        for row, cells in enumerate(rows)
    ]
    table = Table(cells, hAlign="LEFT", spaceBefore=6, spaceAfter=12)
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.6, colors.black),
                ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ]
        )
    )
    return table


def _register_fonts() -> None:
    pdfmetrics.registerFont(TTFont("DejaVu", str(font_file("DejaVuSans.ttf"))))
    pdfmetrics.registerFont(TTFont("DejaVu-Bold", str(font_file("DejaVuSans-Bold.ttf"))))
    pdfmetrics.registerFontFamily(
        "DejaVu", normal="DejaVu", bold="DejaVu-Bold", italic="DejaVu", boldItalic="DejaVu-Bold"
    )


def font_file(name: str) -> Path:
    """Return where a DejaVu font lies; raises FileNotFoundError that says how to get it."""
    for folder in FONT_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is in none of {FONT_FOLDERS}: install fonts-dejavu-core")


# --- a scan: a picture of a page, without a text layer -------------------------------------


NOTICE = """\
ОБЪЯВЛЕНИЕ

Администрация порта Ольховая Гавань
6 октября 2026 года

Уважаемые пассажиры!

С 12 по 16 октября 2026 года причал № 2
закрыт на дноуглубительные работы.

В эти дни все рейсы на остров Скарн
отправляются от причала № 4. Автобус
от вокзала до причала № 4 ходит бесплатно.

Начальник порта    Т. Ю. Лебедева
"""


def scanned_notice(path: Path) -> None:
    """Russian, one page: black on white at 200 dots an inch, a little askew, as scans are."""
    page = Image.new("L", (1654, 1169), 255)
    drawing = ImageDraw.Draw(page)
    plain = ImageFont.truetype(str(font_file("DejaVuSans.ttf")), 44)
    bold = ImageFont.truetype(str(font_file("DejaVuSans-Bold.ttf")), 56)
    for number, line in enumerate(NOTICE.splitlines()):
        drawing.text((170, 110 + 66 * number), line, font=plain if number else bold, fill=0)
    askew = page.rotate(0.5, resample=Image.Resampling.BICUBIC, fillcolor=255)
    askew.convert("1", dither=Image.Dither.NONE).save(
        path,
        "PDF",
        resolution=200,
        title="",
        creationDate=WRITTEN.timetuple(),
        modDate=WRITTEN.timetuple(),
    )


# --- DOCX ----------------------------------------------------------------------------------


def annual_report(path: Path) -> None:
    """English, with a table and a list."""
    document = _word(title="Annual Report 2025")
    document.add_heading("Veresk Line: Annual Report 2025", level=0)
    document.add_heading("Results", level=1)
    document.add_paragraph(
        "In 2025 Veresk Line carried 214,600 passengers, 9 percent more than in the year before, "
        "and 31,900 vehicles. Revenue came to 38.4 million crowns, and the year closed with a "
        "profit of 2.1 million crowns after two years of losses."
    )
    _word_table(
        document,
        [
            ["Year", "Passengers", "Vehicles", "Revenue, million crowns"],
            ["2023", "188,200", "29,100", "32.7"],
            ["2024", "196,900", "30,400", "34.9"],
            ["2025", "214,600", "31,900", "38.4"],
        ],
    )
    document.add_heading("The electric ferry", level=1)
    document.add_paragraph(
        "Kittiwake replaced the steamer Puffin on 14 May 2025. Fuel costs fell by 41 percent in "
        "the first eight months. The shore charger in Alder Harbour was paid for by the regional "
        "climate fund, which gave 6.5 million crowns."
    )
    document.add_heading("What went wrong", level=1)
    for sentence in (
        "Thirty-seven sailings were cancelled because of the weather, most of them in November.",
        "A software fault in the ticket machine of Skarn Island sold seats twice on 2 August.",
        "The lift of Gannet was out of order for eleven weeks while a part was on its way.",
    ):
        document.add_paragraph(sentence, style="List Bullet")
    document.save(str(path))


def luggage_rules(path: Path) -> None:
    """Russian, headings and a list."""
    document = _word(title="Правила провоза багажа")
    document.add_heading("Правила провоза багажа", level=0)
    document.add_heading("Ручная кладь", level=1)
    document.add_paragraph(
        "Каждый пассажир бесплатно провозит одно место ручной клади весом до 12 килограммов. "
        "Детская коляска и инвалидное кресло в счёт не идут."
    )
    document.add_heading("Багаж", level=1)
    document.add_paragraph(
        "Багаж тяжелее 12 килограммов сдают у трапа не позднее чем за двадцать минут до "
        "отправления. За каждое место весом до 30 килограммов взимается 25 крон."
    )
    document.add_heading("Что провозить нельзя", level=1)
    for thing in (
        "газовые баллоны объёмом больше пяти литров;",
        "бензин и другое топливо вне бака автомобиля;",
        "повреждённые литиевые аккумуляторы.",
    ):
        document.add_paragraph(thing, style="List Bullet")
    document.add_paragraph(
        "Велосипед перевозится на автомобильной палубе; ёмкости для воды должны быть пустыми."
    )
    document.save(str(path))


def _word(*, title: str) -> "docx.document.Document":
    document = docx.Document()
    properties = document.core_properties
    properties.title = title
    properties.author = AUTHOR
    properties.created = properties.modified = WRITTEN.replace(tzinfo=None)
    return document


def _word_table(document: "docx.document.Document", rows: Rows) -> None:
    table = document.add_table(rows=0, cols=len(rows[0]), style="Table Grid")
    for row in rows:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text


# --- XLSX ----------------------------------------------------------------------------------


def passengers(path: Path) -> None:
    """Two sheets: passengers a month in English, repairs in Russian."""
    book = openpyxl.Workbook()
    book.properties.title = "Passengers and repairs 2025"
    book.properties.creator = AUTHOR
    book.properties.created = WRITTEN.replace(tzinfo=None)
    months = book.active
    assert months is not None
    months.title = "Passengers 2025"
    months.append(["Month", "Skarn Island", "Grey Holm", "Cancelled sailings"])
    for row in (
        ["January", 9800, 0, 5],
        ["February", 9400, 0, 4],
        ["March", 11900, 0, 2],
        ["April", 14200, 0, 1],
        ["May", 17600, 900, 0],
        ["June", 22800, 2100, 0],
        ["July", 30500, 3900, 1],
        ["August", 29700, 3600, 0],
        ["September", 19300, 1400, 2],
        ["October", 14100, 0, 5],
        ["November", 10600, 0, 13],
        ["December", 12800, 0, 4],
    ):
        months.append(row)
    repairs = book.create_sheet("Ремонт")
    repairs.append(["Судно", "Работа", "Начало", "Дней", "Стоимость, крон"])
    for repair in (
        ["Олуша", "Замена гребного вала", "2025-02-03", 18, 640000],
        ["Олуша", "Ремонт лифта", "2025-09-08", 77, 96000],
        ["Моевка", "Осмотр аккумуляторов", "2025-11-17", 3, 41000],
    ):
        repairs.append(repair)
    for sheet in (months, repairs):
        for cell in sheet[1]:
            cell.font = Font(bold=True)
    book.save(path)


# --- HTML and Markdown ---------------------------------------------------------------------


ISLAND_GUIDE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>A day on Skarn Island</title></head>
<body>
<h1>A day on Skarn Island</h1>
<p>Skarn Island is eight kilometres long and has 610 inhabitants, one school and two shops. Cars are
of little use: the only road ends at the lighthouse of North Point.</p>
<h2>The seal colony</h2>
<p>About four hundred grey seals rest on the skerries west of the village. The path to the viewing
hide is closed from 10 November to 20 January, when the pups are born.</p>
<h2>Where to eat</h2>
<p>The bakery at the pier opens at half past six, in time for the first ferry. Its cardamom buns are
usually gone by nine. The inn The Anchor serves fish soup from noon to eight, except on Mondays.</p>
<h2>Staying overnight</h2>
<table>
<tr><th>Place</th><th>Beds</th><th>Open</th><th>Crowns a night</th></tr>
<tr><td>Keeper's House</td><td>12</td><td>April to October</td><td>850</td></tr>
<tr><td>School hostel</td><td>40</td><td>July and August</td><td>320</td></tr>
<tr><td>The Anchor</td><td>9</td><td>all year</td><td>1,100</td></tr>
</table>
</body>
</html>
"""

HISTORY = """\
<!doctype html>
<html lang="ru">
<head><meta charset="utf-8"><title>История линии «Вереск»</title></head>
<body>
<h1>История линии «Вереск»</h1>
<p>Линию основала в 1911 году вдова рыбака Марта Линд. Её первый пароход, «Тупик», брал сорок
пассажиров, почту и не больше шести коров.</p>
<h2>Война и зима 1942 года</h2>
<p>Зимой 1942 года пролив замёрз на семьдесят один день. Почту на остров Скарн возили на санях, и
карта этой ледовой дороги до сих пор висит в рубке «Олуши».</p>
<h2>Ещё один маяк</h2>
<p>Маяк Серый Холм построен в 1887 году по проекту инженера Эйнара Фалька. Автоматическим он стал в
1974 году, последнего смотрителя звали Пётр Савельев.</p>
</body>
</html>
"""

CREW_HANDBOOK = """\
# Crew handbook

## Shifts and rest

A shift lasts at most twelve hours, and at least eleven hours of rest follow it. Whoever stands the
night watch in harbour sleeps ashore the next day.

## Radio

The line's working channel is 72. Channel 16 is listened to at all times. Before leaving a pier the
mate reports to Tarn Traffic: name of the ship, number of people on board, destination.

## Charging Kittiwake

1. Make fast and set the parking brake of the ramp.
2. Lower the charging arm; the green lamp on the bridge wing shows that it has locked.
3. Start charging from the bridge. Never touch the arm while the lamp is green.

The battery must hold at least 35 percent before a crossing to Skarn Island, and 50 percent when
the wind is above 12 metres a second.

| Charge at departure | Crossing allowed |
|---|---|
| 50 % and more | any |
| 35 to 49 % | Skarn Island in light wind |
| below 35 % | none |
"""

WINTER = """\
# Зимний режим

Зимний режим действует с 15 ноября по 31 марта.

## Лёд

Если толщина льда в проливе больше 20 сантиметров, «Моевка» остаётся в порту и линию держит «Олуша»:
у неё усиленный корпус. Ледовую обстановку диспетчер узнаёт каждое утро в пять часов.

## Палубы и трапы

Трапы посыпают песком, а не солью: соль разъедает алюминиевый настил. За расчистку палубы до первого
рейса отвечает вахтенный матрос.

## Отопление салонов

В салонах поддерживают температуру не ниже 18 градусов. На «Моевке» отопление берёт до восьми
процентов заряда за рейс, поэтому его включают на берегу, пока судно заряжается.
"""


def _writes(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


SAMPLES: dict[str, Callable[[Path], None]] = {
    "timetable-and-fares-2026.pdf": timetable_and_fares,
    "руководство-по-безопасности.pdf": safety_manual,
    "объявление-скан.pdf": scanned_notice,
    "annual-report-2025.docx": annual_report,
    "правила-провоза-багажа.docx": luggage_rules,
    "passengers-2025.xlsx": passengers,
    "a-day-on-skarn-island.html": _writes(ISLAND_GUIDE),
    "история.html": _writes(HISTORY),
    "crew-handbook.md": _writes(CREW_HANDBOOK),
    "зимний-режим.md": _writes(WINTER),
}


if __name__ == "__main__":
    for made in main(*map(Path, sys.argv[1:])):
        sys.stdout.write(f"{made}  {made.stat().st_size:,} bytes\n")
