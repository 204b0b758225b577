"""A report as one HTML page that loads nothing: style, script, figures and pictures are inside."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from anomalib_lamp.report import plots
from anomalib_lamp.report.elements import Page

HERE = Path(__file__).parent


def render_html(page: Page) -> str:
    """Return a report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        page=page,
        key=[(number, model, plots.colour(number), plots.dash(number)) for model, number in page.numbers.items()],
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
