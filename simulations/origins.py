"""Whether a request comes from a page of another site."""

from django.conf import settings
from django.http import HttpRequest


def is_foreign(request: HttpRequest) -> bool:
    """Another site's page speaks, and it is not in CORS_ALLOWED_ORIGINS. Programs send neither header."""
    origin = request.headers.get("Origin")
    if origin:
        return origin not in settings.CORS_ALLOWED_ORIGINS and origin.partition("://")[2] != request.get_host()
    return request.headers.get("Sec-Fetch-Site") == "cross-site"


def may_start_by_get(request: HttpRequest) -> bool:
    """Whether a GET that starts something comes from a page of ours, of a site we trust, or from a program.

    Over plain HTTP under a host's name browsers send no Sec-Fetch headers, and none sends Origin with a GET of its own
    site or without CORS; there the page's address tells. A browser that tells nothing at all hides where it is.
    """
    if request.headers.get("Origin"):
        return not is_foreign(request)
    if site := request.headers.get("Sec-Fetch-Site"):
        return site == "same-origin"
    if referer := request.headers.get("Referer"):
        return referer.partition("://")[2].partition("/")[0] == request.get_host()
    return "Mozilla/" not in request.headers.get("User-Agent", "")
