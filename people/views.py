"""Pages about oneself: signing in, one's tokens, one's password."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

from django.contrib.auth import views
from django.contrib.auth.decorators import login_not_required, login_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from people import browsers, gates, mails, tokens
from people.forms import ResetForm, TokenForm
from people.models import Token

log = logging.getLogger(__name__)
View = Callable[..., HttpResponse]


@login_not_required
@sensitive_post_parameters()
@never_cache
def sign_in(request: HttpRequest) -> HttpResponse:
    """Django's own, with a pause that grows with each failure."""
    if request.method != "POST":
        return views.LoginView.as_view()(request)
    name, address = request.POST.get("username", ""), request.address
    browser = browsers.known(request, name)
    if seconds := gates.seconds_to_sign_in(name, address, browser):
        log.warning("Sign-in as %r from %s was slowed down", name[:80], address)
        return _too_soon(request, "registration/login.html", AuthenticationForm(request), seconds)
    response = views.LoginView.as_view()(request)
    if response.status_code == 302:
        gates.forgive(name, address, browser)
        if not browser:
            browsers.remember(response, name)
    return response


def _too_soon(request: HttpRequest, template: str, form, seconds: int, **context: str) -> HttpResponse:
    wait = f"{seconds} second{'' if seconds == 1 else 's'}" if seconds < 120 else f"{round(seconds / 60)} minutes"
    context |= {"refused": f"Too many attempts. Try again in {wait}.", "next": request.POST.get("next", "")}
    response = render(request, template, {"form": form, **context}, status=429)
    response["Retry-After"] = str(seconds)
    return response


@never_cache
@login_required
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    return _account(request, TokenForm())


def _account(request: HttpRequest, form: TokenForm, *, status: int = 200, **context) -> HttpResponse:
    mine = Token.objects.filter(owner=request.user).order_by("-pk")
    return render(request, "people/account.html", {"form": form, "tokens": mine, **context}, status=status)


@sensitive_post_parameters()
@never_cache
@login_required
@require_POST
def create_token(request: HttpRequest) -> HttpResponse:
    """The one page that ever shows the secret: it is in no session, no log and no database."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _account(request, form, status=422)
    given = {name: form.cleaned_data[name] for name in ("name", "scope")}
    try:
        token, secret = tokens.create(request.user, **given, expires_at=form.expires_at())
    except tokens.TooMany as error:
        return _account(request, form, status=409, message=f"{error}.")
    log.info("%s made token %s (%s, %s)", request.user, token.prefix, token.name, token.scope)
    return _account(request, TokenForm(), status=201, fresh=token, secret=secret)


@login_required
@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(Token, pk=token_id, owner=request.user)
    token.delete()
    log.info("%s revoked token %s (%s)", request.user, token.prefix, token.name)
    return redirect("account")


# Passwords: Django's own views in the site's look

CHANGES = {
    "title": "Change your password",
    "text": "Other browsers are signed out. Tokens stay valid; revoke them on the account page.",
    "button": "Change the password",
}


@sensitive_post_parameters()
@never_cache
@login_required
def change_password(request: HttpRequest) -> HttpResponse:
    """Who finds a browser signed in does not know the password: guessing it here is slowed down as at the door."""
    name, address = request.user.get_username(), request.address
    browser = browsers.known(request, name)
    if request.method == "POST" and (seconds := gates.seconds_to_sign_in(name, address, browser)):
        log.warning("Changing the password of %r from %s was slowed down", name, address)
        return _too_soon(request, "people/form.html", PasswordChangeForm(request.user), seconds, **CHANGES)
    response = views.PasswordChangeView.as_view(
        template_name="people/form.html", success_url=reverse_lazy("password_change_done"), extra_context=CHANGES
    )(request)
    if request.method == "POST" and (
        response.status_code == 302 or "old_password" not in response.context_data["form"].errors
    ):
        gates.forgive(name, address, browser)
    return response


password_changed = login_required(
    views.PasswordChangeDoneView.as_view(
        template_name="people/said.html",
        extra_context={"title": "Your password was changed", "text": "Other browsers are signed out."},
    )
)
ASKS_FOR_MAIL = {
    "title": "Reset your password",
    "text": "A link to choose a new one is sent to the address that your account has.",
    "button": "Send the link",
}


def few_mails(view: View) -> View:
    """A form that has mail sent is not for flooding somebody's mailbox."""

    @wraps(view)
    def limited(request: HttpRequest) -> HttpResponse:
        seconds = gates.seconds_to_reset(request.address) if request.method == "POST" else 0
        if not seconds:
            try:
                return view(request)
            except mails.TooMany:
                seconds = mails.MOST_WAITING
        return _too_soon(request, "people/form.html", ResetForm(), seconds, **ASKS_FOR_MAIL)

    return limited


reset_password = few_mails(
    views.PasswordResetView.as_view(
        form_class=ResetForm,
        template_name="people/form.html",
        email_template_name="people/reset_email.txt",
        subject_template_name="people/reset_subject.txt",
        extra_context=ASKS_FOR_MAIL,
    )
)
reset_sent = views.PasswordResetDoneView.as_view(
    template_name="people/said.html",
    extra_context={
        "title": "Look into your mail",
        "text": "If an account has this address, a link is on its way. It can be used once, within three days.",
    },
)


class ChoosePassword(views.PasswordResetConfirmView):
    """Whoever reads a person's mail is that person: the browser is known from then on, whoever else is guessing."""

    def form_valid(self, form: SetPasswordForm) -> HttpResponse:
        response = super().form_valid(form)
        browsers.remember(response, self.user.get_username())
        return response


choose_password = ChoosePassword.as_view(
    template_name="people/form.html",
    extra_context={"title": "Choose a new password", "text": "", "button": "Set the password"},
)
password_set = views.PasswordResetCompleteView.as_view(
    template_name="people/said.html",
    extra_context={"title": "Your password was set", "text": "Sign in with it now.", "leads_to_sign_in": True},
)
