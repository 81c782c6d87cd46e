"""A self-contained HTML report: text, tables and figures in one file, nothing fetched from elsewhere."""

import base64
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sbi_da.errors import SbiDaError

__all__ = ["Report", "number"]

STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#59636e;--line:#dfe3e8;--page:#fff;--tile:#f5f7f9;--accent:#0067a3}
@media(prefers-color-scheme:dark){:root{--ink:#e3e7eb;--soft:#9aa5b1;--line:#333b44;--page:#15191e;--tile:#1e242b;
--accent:#6cb6ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:68rem;background:var(--page);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
p,ul{max-width:44rem}a{color:var(--accent)}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;max-width:none}
code{background:var(--tile);padding:.1em .3em;border-radius:3px;font-size:.9em}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.4rem}
th,td{padding:.32rem .55rem;vertical-align:top;text-align:right;border-bottom:1px solid var(--line)}
td,tbody th{white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:.2rem}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;border-bottom:2px solid var(--line)}tbody
th{font-weight:500}td small{display:block;font-size:.72rem;color:var(--soft);line-height:1.2} figure{margin:1.4rem 0}
figure img{max-width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px;padding:.5rem}
figcaption{color:var(--soft);font-size:.88rem;max-width:44rem;margin-top:.4rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1.2rem 0}
.tile{background:var(--tile);border-radius:8px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.45rem;line-height:1.3;font-weight:600}.tile span{color:var(--soft);font-size:.85rem}
@media print{nav{display:none}figure,table{break-inside:avoid}}
"""


def _inline(text: str) -> str:
    """Escaped text with ``**bold**``, ``*emphasis*`` and code between backquotes."""
    pieces = re.split(r"`([^`]+)`", text)
    for i, piece in enumerate(pieces):
        piece = html.escape(piece)
        if i % 2:
            pieces[i] = f"<code>{piece}</code>"
            continue
        piece = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", piece, flags=re.DOTALL)
        pieces[i] = re.sub(r"(?<![*\w])\*(\S(?:[^*]*?\S)?)\*(?![*\w])", r"<em>\1</em>", piece)
    return "".join(pieces)


class Report:
    """Text, tables and figures in order, written as one HTML file.

    Args:
        title: heading of the page.
        subtitle: one line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []
        self._figures = 0

    def section(self, heading: str) -> "Report":
        """Start a section; it appears in the table of contents."""
        self._sections.append(heading)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{html.escape(heading)}</h2>')
        return self

    def text(self, content: str) -> "Report":
        """Paragraphs separated by empty lines; ``## `` and ``### `` headings, ``- `` lists, bold, emphasis, code."""
        for block in re.split(r"\n\s*\n", content.strip()):
            lines = [line.strip() for line in block.splitlines() if line.strip()]
            if not lines:
                continue
            if lines[0].startswith("## "):
                self.section(lines.pop(0)[3:])
            elif lines[0].startswith("### "):
                self._parts.append(f"<h3>{_inline(lines.pop(0)[4:])}</h3>")
            if lines and all(line.startswith("- ") for line in lines):
                self._parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
            elif lines:
                self._parts.append(f"<p>{_inline(' '.join(lines))}</p>")
        return self

    def tiles(self, content: Mapping[str, str]) -> "Report":
        """Headline figures: what it is, and its value."""
        tiles = "".join(
            f'<div class="tile"><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>' for k, v in content.items()
        )
        self._parts.append(f'<div class="tiles">{tiles}</div>')
        return self

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> "Report":
        """A table; the first column names the row, floats are shown to three significant digits.

        Raises:
            SbiDaError: a row whose length is not that of the headers.
        """
        for i, row in enumerate(rows):
            if len(row) != len(headers):
                raise SbiDaError(f"report table: row {i} has {len(row)} cells under {len(headers)} headers")
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in headers)
        body = "".join(
            f'<tr><th scope="row">{_cell(row[0])}</th>' + "".join(f"<td>{_cell(c)}</td>" for c in row[1:]) + "</tr>"
            for row in rows
        )
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        # Tables wider than the screen scroll by keyboard too, hence the tabindex.
        self._parts.append(
            f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        return self

    def figure(self, fig: Figure, caption: str, alt: str = "") -> "Report":
        """A figure, embedded as PNG; ``alt`` describes it to those who cannot see it (the caption if empty)."""
        self._figures += 1
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        data = base64.b64encode(buffer.getvalue()).decode()
        width = round(float(fig.get_size_inches()[0]) * 105)
        self._parts.append(
            f'<figure><img src="data:image/png;base64,{data}" width="{width}" '
            f'alt="{html.escape(alt or caption, quote=True)}">'
            f"<figcaption><strong>Figure {self._figures}.</strong> {_inline(caption)}</figcaption></figure>"
        )
        return self

    def render(self) -> str:
        """The page."""
        items = "".join(f'<li><a href="#s{i}">{html.escape(s)}</a></li>' for i, s in enumerate(self._sections, 1))
        contents = f'<nav aria-label="Contents"><ul>{items}</ul></nav>' if items else ""
        subtitle = f"<p>{_inline(self.subtitle)}</p>" if self.subtitle else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n<body><header>"
            f"<h1>{html.escape(self.title)}</h1>{subtitle}{contents}</header><main>\n"
            + "\n".join(self._parts) + "\n</main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page under a temporary name, then rename it: no half-written report."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(self.render(), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def number(value: Any, digits: int = 3) -> str:
    """A value as reports print it; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}".replace("-", "−")


def _cell(value: Any) -> str:
    head, bracket, tail = html.escape(number(value)).partition(" (")
    return f"{head}<small> ({tail}</small>" if bracket and " … " in tail else head + bracket + tail
