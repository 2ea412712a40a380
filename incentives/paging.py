"""Lists in JSON, a page at a time, and the shape of any error."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Schema

Row = TypeVar("Row", bound=Model)


class Problem(Schema):
    """Any error."""

    detail: str


def page(
    request: HttpRequest, response: HttpResponse, rows: QuerySet[Row], *, limit: int, cursor: int | None
) -> list[Row]:
    """Of rows in falling order of their numbers, those below the cursor; a Link header tells the next page if there is
    one."""
    if cursor is not None:
        rows = rows.filter(pk__lt=cursor)
    found = list(rows[: limit + 1])
    if len(found) > limit:
        link_next(request, response, limit=limit, cursor=found[limit - 1].pk)
    return found[:limit]


def link_next(request: HttpRequest, response: HttpResponse, **values: int) -> None:
    """The same address with these values, as a Link header."""
    query = request.GET.copy()
    for name, value in values.items():
        query[name] = str(value)
    response["Link"] = f'<{request.build_absolute_uri(request.path)}?{query.urlencode()}>; rel="next"'
