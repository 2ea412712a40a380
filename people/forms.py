"""The form that makes a token, and the one that has a password's link sent."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import PasswordResetForm
from django.core.validators import RegexValidator
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils import timezone

from people import gates, mails
from people.models import Scope

log = logging.getLogger(__name__)

DAYS = ((30, "30 days"), (90, "90 days"), (365, "a year"), (0, "until it is revoked"))
ONE_LINE = RegexValidator(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029]", "One line, without control characters", inverse_match=True
)
SCOPES = ((Scope.READ, "read"), (Scope.WRITE, "read and write"))


class TokenForm(forms.Form):
    name = forms.CharField(
        max_length=64,
        label="What it is for",
        widget=forms.TextInput({"autocomplete": "off"}),
        validators=[ONE_LINE],
    )
    scope = forms.ChoiceField(choices=SCOPES, label="May")
    days = forms.TypedChoiceField(choices=DAYS, coerce=int, initial=90, label="Valid for")

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["days"]
        return timezone.now() + timedelta(days=days) if days else None


class ResetForm(PasswordResetForm):
    """Django's own, which looks for the person and writes after the answer, and to nobody's mailbox all day."""

    def save(self, *, request: HttpRequest, **options: Any) -> None:
        """Raises mails.TooMany."""
        mails.later(partial(super().save, domain_override=own_domain(request), request=None, **options))

    def send_mail(
        self,
        subject_template_name: str,
        email_template_name: str,
        context: dict[str, Any],
        from_email: str | None,
        to_email: str,
        **options: Any,
    ) -> None:
        if gates.seconds_to_mail(to_email):
            log.warning("%s was not sent another link: three an hour are enough", context["user"])
            return
        super().send_mail(subject_template_name, email_template_name, context, from_email, to_email, **options)


def own_domain(request: HttpRequest) -> str:
    """The host of a link to this site. Django checks the name that a request gives, not its port; a port is taken where
    it is the one that we listen on, or belongs to an origin in CSRF_TRUSTED_ORIGINS, else the scheme's own is meant."""
    host = request.get_host()
    name, port = split_domain_port(host)
    is_ours = not settings.FEDSITE_PROXIES and port == request.META.get("SERVER_PORT")
    return host if is_ours or f"{request.scheme}://{host}" in settings.CSRF_TRUSTED_ORIGINS else name
