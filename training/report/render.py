"""The templates of this package: the report in HTML and in Markdown, and the model card.

The HTML page is one file with its pictures inside, without script or network, so it can be mailed
and opened from disk. On a phone a wide table becomes a list and a wide picture scrolls in its box.
"""

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from .document import CODE, code

# Code, and what GitHub's Markdown reads as more than a character. It takes as they are "_" between
# letters or digits, and "&" that begins no entity.
_MARKDOWN = re.compile(
    CODE.pattern + r"|[\\`*<\[\]$~|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)", re.DOTALL
)


def render(template: str, **context: Any) -> bytes:
    """Fill a file of the folder templates/; values are escaped where it is HTML, and by the filter
    `md` where it is Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": _base64, "png_size": png_size, "code": code, "html": _to_html, "md": _to_markdown,
    }  # fmt: skip
    return environment.get_template(template).render(context).encode("utf-8", "har-printable")


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG. Raises OSError where the file is none."""
    with Image.open(path, formats=["PNG"]) as image:
        return image.size


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _to_html(text: str) -> Markup:
    """Escaped, code as such; a browser must not break "--epochs" after its first hyphen."""

    def replace(match: re.Match[str]) -> str:
        words = re.sub(r"(?<!\S)--[\w-]+", r'<span class="option">\g<0></span>', match[1])
        return f"<code>{words}</code>"

    return Markup(CODE.sub(replace, str(escape(text))))


def _to_markdown(value: object) -> str:
    """One line of Markdown that a viewer shows as `value`, with code as such."""

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return f"\\{match[0]}"
        fence = "`" * (1 + max(map(len, re.findall("`+", match[1])), default=0))
        space = " " * (len(fence) > 1)
        return f"{fence}{space}{match[1]}{space}{fence}".replace("|", "\\|")

    return _MARKDOWN.sub(replace, " ".join(str(value).splitlines()))
