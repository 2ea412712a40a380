"""What no address, cookie or header may hold is refused before anything else reads it. No refusal shows our insides.

Databases differ in what they make of a NUL, logs and headers in what they make of a line break: here is the one place
that keeps both out. Bodies are read by `simulations.reading`; `fedsite.wire` holds their size too, while they arrive.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import DataError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

log = logging.getLogger(__name__)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")  # and the sign that stands where bytes were no UTF-8
LONGEST = 1_000  # characters of one value in an address: nothing here needs more, and SQLite stops at 1,000 words
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


class WellFormed:
    """400, 413 or 415 in a sentence: as JSON under /api/, as a page elsewhere."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if wrong := what_is_wrong(request):
            return refusal(request, *wrong)
        _forget_odd_cookies(request)
        response = self.get_response(request)
        if response.status_code == 400 and response.get("Content-Type", "").startswith("text/"):
            # Django's own: in DEBUG it tells our insides to whoever sends a wrong Host.
            return refusal(request, 400, "The host, the form or the address of this request is not what it should be")
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """The admin's lists take any number for a row's and any for a year's, and the database refuses them."""
        match = request.resolver_match
        if match is None or match.app_name != "admin" or not str(match.url_name).endswith("_changelist"):
            return None
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME) if request.method == "POST" else ["x"]
        if not isinstance(error, ArithmeticError | ValueError | DataError) or all(map(_is_row, chosen)):
            return None
        log.warning("A list of the admin cannot be searched for %s: %s", request.get_full_path()[:200], error)
        return refusal(request, 400, "The list cannot be searched for this")


def what_is_wrong(request: HttpRequest) -> tuple[int, str] | None:
    """Status and sentence."""
    if CONTROL.search(request.path_info):
        return 400, "The address holds a control character, or bytes that are no UTF-8"
    try:
        query = unquote_to_bytes(request.META.get("QUERY_STRING", "")).decode()
    except UnicodeDecodeError:
        return 400, "The address holds bytes that are no UTF-8 after its question mark"
    if CONTROL.search(query):
        return 400, "The address holds a control character after its question mark"
    if query.count("&") >= settings.DATA_UPLOAD_MAX_NUMBER_FIELDS:
        return 400, "The address holds too many values"
    if any(len(part) > LONGEST for part in re.split("[=&]", query)):
        return 414, f"The address holds a value of more than {LONGEST:,} characters"
    charset = (request.content_params or {}).get("charset", "utf-8")
    if charset.lower() not in CHARSETS:
        return 415, "Bodies are taken in UTF-8 only"
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return 400, "The Content-Length is not a number"
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if len(length) > 18 or int(length) > most:
        return 413, f"The body is too large: at most {most:,} bytes are taken"
    return None


def refusal(request: HttpRequest, status: int, sentence: str) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return JsonResponse({"detail": sentence}, status=status)
    return render(request, "400.html", {"sentence": f"{sentence}."}, status=status)


def _is_row(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _forget_odd_cookies(request: HttpRequest) -> None:
    """A cookie may come from another program on the same host, and must lock nobody out: those that we could not have
    set are as if they had not come. Quoted ones may spell any character."""
    odd = [name for name, value in request.COOKIES.items() if CONTROL.search(name + value)]
    for name in odd:
        del request.COOKIES[name]
