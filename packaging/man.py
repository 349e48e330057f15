"""Turn the manual pages' markdown (docs/NAME.SECTION.md) into man(7) pages.

    packaging/man.py --output DIRECTORY FILE.md...

The file's name says name and section. The markdown understood is what the pages use: headings,
paragraphs, fenced code, `-` and `1.` lists, definition lists (a paragraph, then lines that begin
with ": "), tables, **bold**, *italic*, `code`, [text](target). Source: man(7), groff_man(7).
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE_NAME: Final = re.compile(r"(?P<name>.+)\.(?P<section>[1-9])\.md")
_SPAN: Final = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\*\*(?P<bold>[^*]+)\*\*"
    r"|(?<!\w)[*_](?P<italic>[^*_]+)[*_](?!\w)"
    r"|\[(?P<text>[^\]]+)\]\((?P<target>[^)]+)\)"
)
_ITEM: Final = re.compile(r"(?P<indent> *)(?P<mark>[-*]|\d+\.) +(?P<text>.*)")
_TABLE_RULE: Final = re.compile(r"\|?[\s:|-]+\|[\s:|-]*")


def escape(text: str) -> str:
    """Return `text` so that roff prints exactly it."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text


def spans(text: str) -> str:
    """Return one paragraph's text with its markdown spans as roff fonts."""
    parts: list[str] = []
    end = 0
    for match in _SPAN.finditer(text):
        parts.append(escape(text[end : match.start()]))
        if match["code"] or match["bold"]:
            parts.append(f"\\fB{escape(match['code'] or match['bold'])}\\fR")
        elif match["italic"]:
            parts.append(f"\\fI{escape(match['italic'])}\\fR")
        else:
            parts.append(f"{escape(match['text'])} ({escape(match['target'])})")
        end = match.end()
    return "".join([*parts, escape(text[end:])])


@dataclass
class Lines:
    """The page's lines and where the reader stands."""

    lines: list[str]
    at: int = 0

    def more(self) -> bool:
        """Return whether a line is left."""
        return self.at < len(self.lines)

    def peek(self) -> str:
        """Return the next line, "" at the end."""
        return self.lines[self.at] if self.more() else ""

    def take(self) -> str:
        """Return the next line and go past it."""
        line = self.peek()
        self.at += 1
        return line

    def block(self) -> str:
        """Return the text up to a blank line or another kind of block, as one line."""
        taken = [self.take().strip()]
        while self.peek().strip() and not starts_block(self.peek()):
            taken.append(self.take().strip())
        return " ".join(taken)


def starts_block(line: str) -> bool:
    """Return whether `line` begins something else than a paragraph's next line."""
    text = line.lstrip()
    return text.startswith(("#", "```", "|", ": ")) or _ITEM.fullmatch(line) is not None


def code(lines: Lines) -> Iterator[str]:
    """Yield a fenced block, to its closing fence or the end of the page."""
    lines.take()
    yield from (".PP", ".RS 4", ".nf")
    while lines.more() and not lines.peek().lstrip().startswith("```"):
        yield escape(lines.take()) or "\\&"
    lines.take()
    yield from (".fi", ".RE")


def table(lines: Lines) -> Iterator[str]:
    """Yield a table as one tagged paragraph a row: the first cell is the tag."""
    rows: list[list[str]] = []
    while lines.peek().lstrip().startswith("|"):
        line = lines.take().strip()
        if not _TABLE_RULE.fullmatch(line):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            rows.append([cell.strip().replace("\\|", "|") for cell in cells])
    for row in rows[1:]:
        yield from (".TP", spans(row[0]) or "\\&")
        yield spans("; ".join(cell for cell in row[1:] if cell)) or "\\&"


def definition(term: str, lines: Lines) -> Iterator[str]:
    """Yield a tagged paragraph: the term was read, its texts follow."""
    yield from (".TP", spans(term))
    first = True
    while lines.peek().startswith(": "):
        text = lines.block()[2:]
        yield from [spans(text)] if first else [".sp", spans(text)]
        first = False


def item(lines: Lines) -> Iterator[str]:
    """Yield one item of a list; a list within a list is indented once more."""
    match = _ITEM.fullmatch(lines.peek())
    assert match is not None
    text = lines.block()[len(match["mark"]) :].strip()
    mark = "\\(bu" if match["mark"] in "-*" else match["mark"]
    deep = len(match["indent"]) > 1
    yield from [".RS 4"] * deep
    yield from (f'.IP "{mark}" 4', spans(text))
    yield from [".RE"] * deep


def body(lines: Lines) -> Iterator[str]:
    """Yield the whole page below its title."""
    while lines.more():
        line = lines.peek()
        if not line.strip() or line.startswith(("# ", "<!--")):
            lines.take()
        elif line.startswith("## "):
            title = lines.take()[3:].replace("`", "")
            # Upper case, as manual pages have it; the name of a table stays what one has to type.
            yield f'.SH "{escape(title if "[" in title else title.upper())}"'
        elif line.startswith("###"):
            yield f'.SS "{escape(lines.take().lstrip("# "))}"'
        elif line.lstrip().startswith("```"):
            yield from code(lines)
        elif line.lstrip().startswith("|"):
            yield from table(lines)
        elif _ITEM.fullmatch(line):
            yield from item(lines)
        else:
            text = lines.block()
            blank = Lines(lines.lines, lines.at)
            while blank.more() and not blank.peek().strip():
                blank.take()
            if blank.peek().startswith(": "):
                lines.at = blank.at
                yield from definition(text, lines)
            else:
                yield from (".PP", spans(text.removeprefix(": ")))


def page(name: str, section: str, text: str) -> str:
    """Return the man(7) source of the page `name`(`section`)."""
    head = f'.TH "{escape(name.upper())}" "{section}" "" "carpool" "carpool manual"'
    return "\n".join([head, ".nh", ".ad l", *body(Lines(text.splitlines())), ""])


def main() -> None:
    """Write DIRECTORY/NAME.SECTION for each file named on the command line."""
    parser = argparse.ArgumentParser(description="markdown to man(7)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for file in arguments.files:
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            parser.error(f"{file}: is not called NAME.SECTION.md")
        target = arguments.output / f"{match['name']}.{match['section']}"
        target.write_text(page(match["name"], match["section"], file.read_text()))


if __name__ == "__main__":
    main()
