"""Fills the index of modules into docs/architecture.md while MkDocs builds the site.

The page holds the line `<!-- modules -->` where the index goes: every module of the packages with
the first sentence of its docstring. Sources are parsed, never imported, so that the site needs
none of the project's dependencies, and the index cannot be out of date.
"""

import ast
import html
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("perceiver", "data", "train", "configs")
PAGE = "architecture.md"
PLACE = "<!-- modules -->"


def on_page_markdown(markdown: str, page, **_) -> str:
    """MkDocs calls this with the text of each page."""
    if page.file.src_uri != PAGE:
        return markdown
    if markdown.count(PLACE) != 1:
        raise ValueError(f"docs/{PAGE} must hold the line {PLACE} once")
    return markdown.replace(PLACE, "\n".join(index(ROOT)))


def index(root: pathlib.Path) -> list[str]:
    """Returns a heading and a table for each folder that holds modules."""
    lines = []
    for package in PACKAGES:
        for folder in [root / package, *sorted((root / package).rglob("*"))]:
            modules = sorted(folder.glob("*.py")) if folder.is_dir() else []
            if not modules:
                continue
            level = "###" if folder == root / package else "####"
            lines += ["", f"{level} `{folder.relative_to(root)}/`", ""]
            own = folder / "__init__.py"
            if own.exists() and summary(own):
                lines += [summary(own), ""]
            rows = [f"| `{path.name}` | {summary(path)} |" for path in modules if path != own]
            lines += ["| module | what it holds |", "|---|---|", *rows] if rows else []
    return lines


def summary(path: pathlib.Path) -> str:
    """Returns the first paragraph of a module's docstring on one line, safe in a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    parts = first.split("`")  # every second one is code
    for i, part in enumerate(parts):
        text = html.escape(part, quote=False).replace("|", "&#124;").replace("*", "&#42;")
        parts[i] = f"<code>{text}</code>" if i % 2 else text
    return "".join(parts)
