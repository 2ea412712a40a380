"""Make a token for a user's program, and print its secret: alone, and this once."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from people import tokens
from people.models import Scope


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="user name of the token's owner")
        parser.add_argument("--scope", choices=Scope.values, default=Scope.READ, help="what it allows; default: read")
        parser.add_argument("--name", default="made in the shell", help="what it is for; at most 64 characters")
        parser.add_argument("--days", type=int, default=90, help="how long it is valid; 0: until it is revoked")

    def handle(self, *args: Any, user: str, scope: str, name: str, days: int, **options: Any) -> None:
        owner = get_user_model().objects.filter(username=user).first()
        if owner is None or not owner.is_active:
            raise CommandError(f"USER: there is no active user {user!r}", returncode=2)
        if not 0 < len(name) <= 64 or not name.isprintable():
            raise CommandError("--name: one line of at most 64 characters", returncode=2)
        if not 0 <= days <= 36_500:
            raise CommandError("--days: a whole number from 0 to 36500", returncode=2)
        expires_at = timezone.now() + timedelta(days=days) if days else None
        try:
            _, secret = tokens.create(owner, name=name, scope=scope, expires_at=expires_at)
        except tokens.TooMany as error:
            raise CommandError(f"USER: {error}", returncode=1) from None
        self.stdout.write(secret)
