"""The form that makes a token."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms
from django.core.validators import RegexValidator
from django.utils import timezone

from people.models import Scope

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
