"""Every address that the site has, as routing knows it, with its arguments filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.contrib.contenttypes.models import ContentType
from django.urls import URLPattern, URLResolver, get_resolver

ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")


@dataclass(frozen=True)
class Address:
    """`name` is the routing's own, such as simulations:simulation."""

    path: str
    name: str


def addresses(arguments: dict[str, str]) -> list[Address]:
    """All of them. `arguments` are the values by name; a KeyError is an argument that nobody has thought of."""
    return list(_under(get_resolver().url_patterns, "/", (), lambda name, path: _value(name, path, arguments)))


def _under(
    patterns: list[URLPattern | URLResolver], before: str, spaces: tuple[str, ...], value: Callable[[str, str], str]
) -> Iterator[Address]:
    for pattern in patterns:
        path = before + str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z")
        if isinstance(pattern, URLResolver):
            yield from _under(pattern.url_patterns, path, (*spaces, *filter(None, [pattern.namespace])), value)
            continue
        path = ARGUMENT.sub(lambda found, path=path: value(found[1] or found[2], path), path)
        yield Address(path, ":".join([*spaces, pattern.name or ""]))


def _value(name: str, path: str, arguments: dict[str, str]) -> str:
    """The admin's `object_id` is that of the newest row of its model."""
    if name != "object_id" or not (found := re.match(r"/admin/(\w+)/(\w+)/", path)):
        return arguments[name]
    model = ContentType.objects.get_by_natural_key(*found.groups()).model_class()
    assert model is not None
    return str(model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 1)
