"""Reading pages in tests, and doing to them what the browser does with a streamed fragment."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from django.test.html import Element, parse_html

from simulations.showing.fragments import LOG_LINES


def elements(element: Element) -> Iterator[Element]:
    yield element
    for child in element.children:
        if isinstance(child, Element):
            yield from elements(child)


def attribute(element: Element, name: str) -> str | None:
    return dict(element.attributes).get(name)


def by_id(page: Element, id: str) -> Element:
    return next(element for element in elements(page) if attribute(element, "id") == id)


def text(element: Element) -> str:
    parts = [text(child) if isinstance(child, Element) else child for child in element.children]
    return " ".join(" ".join(parts).split())


def live(html: str) -> Element:
    """What a page shows of a simulation, without the address of its stream."""
    region = by_id(parse_html(html), "live")
    region.attributes = [pair for pair in region.attributes if pair[0] not in ("hx-ext", "sse-connect", "sse-close")]
    return region


def apply(page: Element, html: str) -> Element:
    """A copy of the page after htmx has swapped the fragment in and app.js has shortened the log."""
    page = copy.deepcopy(page)
    root = parse_html(f"<div>{html}</div>")
    for child in (child for child in root.children if isinstance(child, Element)):
        if child.name == "template":
            child = next(inner for inner in child.children if isinstance(inner, Element))
        _swap(page, child)
    log = by_id(page, "log")
    log.children = [line for line in log.children if isinstance(line, Element)][-LOG_LINES:]
    return page


def _swap(page: Element, fresh: Element) -> None:
    how = attribute(fresh, "hx-swap-oob")
    fresh.attributes = [pair for pair in fresh.attributes if pair[0] != "hx-swap-oob"]
    if how is None:
        assert fresh.name == "li"
        by_id(page, "log").children.append(fresh)
    elif how.startswith("beforeend:#"):
        by_id(page, how.removeprefix("beforeend:#")).children.extend(fresh.children)
    else:
        assert how == "true"
        _replace(page, attribute(fresh, "id"), fresh)


def _replace(page: Element, id: str | None, fresh: Element) -> None:
    for parent in elements(page):
        for place, child in enumerate(parent.children):
            if isinstance(child, Element) and attribute(child, "id") == id:
                parent.children[place] = fresh
                return
    raise AssertionError(f"the page has no #{id}")
