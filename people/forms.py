"""The form that makes a token."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms
from django.utils import timezone

from people.models import Scope

DAYS = ((30, "30 days"), (90, "90 days"), (365, "a year"), (0, "until it is revoked"))
SCOPES = ((Scope.READ, "read"), (Scope.WRITE, "read and write"))


class TokenForm(forms.Form):
    name = forms.CharField(max_length=64, label="What it is for", widget=forms.TextInput({"autocomplete": "off"}))
    scope = forms.ChoiceField(choices=SCOPES, label="May")
    days = forms.TypedChoiceField(choices=DAYS, coerce=int, initial=90, label="Valid for")

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["days"]
        return timezone.now() + timedelta(days=days) if days else None
