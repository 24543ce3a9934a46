"""The few pieces of HTML that the page is made of. Text that comes from outside goes through :func:`text`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """Anything as text that cannot be mistaken for markup."""
    return html.escape(str(value), quote=True)


def section(identifier: str, title: str, body: str, lead: str = "") -> str:
    """A part of the page with a heading that the contents link to; nothing where there is no body."""
    if not body:
        return ""
    heading = f'<h2 id="{identifier}-title">{text(title)}</h2>'
    introduction = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{identifier}" aria-labelledby="{identifier}-title">{heading}{introduction}{body}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str, note: str = "", kind: str = "") -> str:
    """A table under its title; cells are markup, the first of each row names it. Where it is too wide it scrolls by itself."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows)
    return (
        f'<figure class="table"><figcaption><b>{text(title)}</b> {text(note)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(title)}"><table class="{kind}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def figure(drawing: str, caption: str = "") -> str:
    """A drawing, with a caption above where there is one."""
    above = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="chart">{above}{drawing}</figure>'


def notice(title: str, items: Iterable[str]) -> str:
    """What the reader should know before the numbers; nothing where there is nothing to know. Items are markup."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<aside class="notice" aria-label="{text(title)}"><h3>{text(title)}</h3><ul>{listed}</ul></aside>' if listed else ""


def image(address: str | None, alternative: str) -> str:
    """A picture, or where it is gone a frame that says so."""
    if address is None:
        return f'<span class="missing" role="img" aria-label="{text(alternative)} (picture not found)">no picture</span>'
    return f'<img src="{address}" alt="{text(alternative)}" loading="lazy" decoding="async">'


def fold_out(title: str, body: str) -> str:
    """Something for those who want it all."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"
