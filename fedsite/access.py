"""Who may come in (FEDSITE_ACCESS), who speaks, how often, and which writes over JSON no other site has forged."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.shortcuts import resolve_url
from django.urls import resolve
from ninja.errors import HttpError

from people import limits, tokens
from people.models import Scope, Token
from simulations.origins import is_foreign
from simulations.showing.visitors import Visitor

HEALTH_PATHS = ("/healthz", "/readyz")
SAFE = ("GET", "HEAD", "OPTIONS")


class LoadBalancers:
    """They ask by address, over plain HTTP, without an account: answered before any of these is looked at."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info in HEALTH_PATHS:  # what routing looks at, and the answer is routing's own
            return resolve(request.path_info).func(request)
        return self.get_response(request)


class AccessMiddleware(LoginRequiredMiddleware):
    """With FEDSITE_ACCESS=login a view is for people with an account, unless it says otherwise itself
    (`login_not_required`). A token says whom its program acts for, at the API's views alone.

    What is asked is the view that routing has found. The address is not looked at: whoever spells it in a way that
    this place and routing read differently would come in.

    For all that count by it, `request.address` says where a request comes from (people.limits).
    """

    sync_capable, async_capable = True, False

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.address = limits.address(request)
        return super().__call__(request)

    def process_view(self, request: HttpRequest, view_func, view_args, view_kwargs) -> HttpResponse | None:
        refused = (_program(request) or _too_often(request)) if _is_api(request) else None
        request.visitor = visitor(request)
        if refused:
            return refused
        if settings.FEDSITE_ACCESS == "open":
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)

    def handle_no_permission(self, request: HttpRequest, view_func) -> HttpResponse:
        if _is_api(request) and request.resolver_match.url_name != "openapi-view":  # a page for people
            return _unknown("Sign in first, or send a token", 'Bearer realm="fedsite"')
        if request.headers.get("HX-Request"):  # a sign-in page has no place inside a fragment
            return HttpResponse(status=401, headers={"HX-Redirect": resolve_url(settings.LOGIN_URL)})
        return super().handle_no_permission(request, view_func)


def _is_api(request: HttpRequest) -> bool:
    return request.resolver_match.app_name == "ninja"


def visitor(request: HttpRequest) -> Visitor:
    """Whose request it is, in a form that can be asked again later."""
    token: Token | None = getattr(request, "token", None)
    key = (token and token.pk, request.session.session_key)
    return Visitor(key=key, now=partial(_now, request))


def _now(request: HttpRequest) -> Any | None:
    if hasattr(request, "token"):
        token = tokens.known(request.headers["Authorization"].partition(" ")[2].strip())
        return token and token.owner
    fresh = HttpRequest()
    fresh.session = type(request.session)(request.session.session_key)
    user = get_user(fresh)
    return user if settings.FEDSITE_ACCESS == "open" or user.is_authenticated else None


def _program(request: HttpRequest) -> HttpResponse | None:
    """Whose program it is, by its token; a refusal where the token is wrong or does not allow what is asked.

    `request.may_write` is for views that write where the method does not say so.
    """
    request.may_write = True
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = tokens.known(secret.strip())
    if token is None:
        return limited(request, "address", request.address) or _unknown(
            "The token is unknown, expired or revoked", 'Bearer error="invalid_token"'
        )
    request.token, request.user, request.may_write = token, token.owner, token.scope == Scope.WRITE
    if request.method not in SAFE and not request.may_write:
        return JsonResponse({"detail": "This token may read only"}, status=403)
    return None


def _too_often(request: HttpRequest) -> HttpResponse | None:
    token: Token | None = getattr(request, "token", None)
    if token is not None:
        return limited(request, "token", str(token.pk))
    if request.user.is_authenticated:
        return limited(request, "user", str(request.user.pk))
    return limited(request, "address", request.address)


def limited(request: HttpRequest, kind: str, who: str) -> HttpResponse | None:
    """429 with Retry-After after FEDSITE_REQUESTS_PER_MINUTE requests in a minute."""
    most = settings.FEDSITE_REQUESTS_PER_MINUTE
    seconds = limits.seconds_over(f"{kind}:{who}", most)
    if not seconds:
        return None
    detail = f"More than {most} requests in a minute; go on in {seconds} s"
    return JsonResponse({"detail": detail}, status=429, headers={"Retry-After": str(seconds)})


def _unknown(detail: str, challenge: str) -> HttpResponse:
    return JsonResponse({"detail": detail}, status=401, headers={"WWW-Authenticate": challenge})


def may_write(request: HttpRequest) -> bool:
    """The API's rule for writes; an HttpError with status and reason where it is broken."""
    if request.method in SAFE or hasattr(request, "token"):  # a browser sends no token by itself
        return True
    if is_foreign(request):
        raise HttpError(403, "Another site may not write here; see CORS_ALLOWED_ORIGINS")
    if settings.FEDSITE_ACCESS == "open" and request.content_type == "application/json":
        return True
    if settings.FEDSITE_ACCESS == "open" and not request.META.get("HTTP_X_CSRFTOKEN"):
        raise HttpError(415, "Content-Type must be application/json")
    if CsrfViewMiddleware(lambda request: HttpResponse()).process_view(request, lambda request: None, (), {}):
        raise HttpError(403, "The CSRF token is missing or wrong")
    return True
