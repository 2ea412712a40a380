"""Whether a request comes from a page of another site."""

from django.conf import settings
from django.http import HttpRequest


def is_foreign(request: HttpRequest) -> bool:
    """Another site's page speaks, and it is not in CORS_ALLOWED_ORIGINS. Programs send neither header."""
    origin = request.headers.get("Origin")
    if origin:
        return origin not in settings.CORS_ALLOWED_ORIGINS and origin.partition("://")[2] != request.get_host()
    return request.headers.get("Sec-Fetch-Site") == "cross-site"
