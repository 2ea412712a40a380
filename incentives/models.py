"""Who holds the tokens, and every transfer that made it so. `ledger` is the only writer.

Two nouns and one invariant: a transfer moves a positive whole number of micro-tokens from one account (debit)
to another (credit), so the balances of a ledger always sum to zero. History is append-only: by triggers in
the database, whoever asks (migration 0002), and by guards here, which say so earlier and in plainer words.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from incentives.errors import AppendOnly

MINT = "mint"  # where tokens are born; the only account below zero: minus what is in circulation
TREASURY = "treasury"  # where rewards wait
MAX_SUPPLY = 2**53 - 1  # micro-tokens; JSON numbers are exact up to here


def client_number(account: str) -> int | None:
    """3 of client:3; None for an account that is no client's."""
    kind, _, number = account.partition(":")
    return int(number) if kind == "client" and number else None


def concerned(account: str) -> int | None:
    """The client whom an account concerns: 3 of client:3 and of stake:3."""
    kind, _, number = account.partition(":")
    return int(number) if kind in ("client", "stake") and number else None


def _unsaved_only(row: models.Model) -> None:
    if not row._state.adding:
        raise AppendOnly(f"{row} was posted and cannot be changed; post a reversal")


class Ledger(models.Model):
    """A chain of transactions. One per simulation, and one named `manual`."""

    name = models.CharField(max_length=64, unique=True)
    head = models.CharField(max_length=64, help_text="chain hash of the newest transaction, hex SHA-256")
    length = models.PositiveBigIntegerField(default=0, help_text="number of transactions")
    is_shadow = models.BooleanField(
        default=False, db_default=False, help_text="of an economy that pays nobody: it shows what it would have paid"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.name

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnly(f"Ledger {self.name} cannot be deleted")


class Account(models.Model):
    """A holder of tokens within a ledger."""

    ledger = models.ForeignKey(Ledger, on_delete=models.PROTECT, related_name="accounts")
    ledger_id: int  # Django makes it
    name = models.CharField(max_length=64, help_text="mint, treasury, client:3, ...")
    client = models.PositiveBigIntegerField(null=True, blank=True, db_index=True, help_text="the number in client:3")
    balance = models.BigIntegerField(default=0, help_text="micro-tokens; credits minus debits")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint(fields=["ledger", "name"], name="one_account_of_a_name"),
            models.CheckConstraint(
                condition=Q(balance__gte=0) | Q(name=MINT, balance__gte=-MAX_SUPPLY),
                name="only_the_mint_below_zero",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnly(f"Account {self.name} cannot be deleted")


class Transaction(models.Model):
    """A list of transfers, all or nothing, at its place in the chain."""

    ledger = models.ForeignKey(Ledger, on_delete=models.PROTECT, related_name="transactions")
    ledger_id: int  # Django makes it
    sequence = models.PositiveBigIntegerField(help_text="from 1, without gap, in the order of commits")
    key = models.CharField(max_length=200, help_text="a repeat of it posts nothing")
    content_sha256 = models.CharField(max_length=64, help_text="of all but the place in the chain")
    description = models.CharField(max_length=500, blank=True)
    memo = models.JSONField(default=dict, help_text="integers and strings by name")
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, help_text="chain hash, hex SHA-256")
    reverses = models.OneToOneField("self", null=True, blank=True, on_delete=models.PROTECT, related_name="reversed_by")
    recorded_at = models.DateTimeField(default=timezone.now, editable=False, db_index=True, help_text="not hashed")

    class Meta:
        permissions = (
            ("reward_by_hand", "Can mint rewards by hand"),
            ("reverse_transaction", "Can reverse transactions"),
        )
        constraints = [  # noqa: RUF012
            models.UniqueConstraint(fields=["ledger", "sequence"], name="one_transaction_of_a_sequence"),
            models.UniqueConstraint(fields=["ledger", "key"], name="one_transaction_of_a_key"),
            models.CheckConstraint(condition=Q(sequence__gte=1), name="transactions_from_1"),
        ]

    def __str__(self) -> str:
        return f"Transaction {self.sequence}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        _unsaved_only(self)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnly(f"{self} cannot be deleted; post a reversal")


class Transfer(models.Model):
    """Micro-tokens from one account to another."""

    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="transfers")
    position = models.PositiveIntegerField(help_text="from 1 within its transaction")
    debit_account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="debits")
    credit_account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="credits")
    amount = models.PositiveBigIntegerField(help_text="micro-tokens")
    code = models.CharField(max_length=32, help_text="what for: pool, reward, reversal, ...")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint(fields=["transaction", "position"], name="one_transfer_of_a_position"),
            models.CheckConstraint(condition=Q(position__gte=1), name="transfers_from_1"),
            models.CheckConstraint(condition=Q(amount__gte=1, amount__lte=MAX_SUPPLY), name="transfers_move_something"),
            models.CheckConstraint(condition=~Q(debit_account=F("credit_account")), name="transfers_between_two"),
        ]

    def __str__(self) -> str:
        return f"Transfer {self.position}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        _unsaved_only(self)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnly(f"{self} cannot be deleted; post a reversal")

    @property
    def client(self) -> int | None:
        """Whom it concerns: who gets it, else who gives it."""
        return next(filter(None, map(concerned, (self.credit_account.name, self.debit_account.name))), None)


class Evidence(models.Model):
    """What payments rest on, by its hash: utilities of coalitions, see valuation.evidence. Equal ones are kept once."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    content = models.BinaryField()

    def __str__(self) -> str:
        return self.sha256[:12]


class RewardRequest(models.Model):
    """A reward that was asked for by hand within the last day, so that a key means one reward and a day has its cap."""

    key = models.CharField(max_length=200, unique=True, help_text="of the transaction, also where nothing was paid")
    asked_sha256 = models.CharField(max_length=64, help_text="of the terms and the actor")
    address = models.CharField(max_length=64, blank=True, help_text="where open access asked from")
    microtokens = models.PositiveBigIntegerField()
    asked_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.key


class Verified(models.Model):
    """What the newest verification of a ledger found, and where it ended well: the next one goes on from there."""

    ledger = models.OneToOneField(Ledger, on_delete=models.PROTECT, primary_key=True, related_name="verified")
    sequence = models.PositiveBigIntegerField(help_text="of the transaction up to which all was well")
    hash = models.CharField(max_length=64, help_text="chain hash there")
    transfers = models.PositiveBigIntegerField(help_text="up to there")
    balances_sha256 = models.CharField(max_length=64, help_text="of who held what there")
    problem = models.TextField(blank=True, help_text="what is wrong first; stands until everything was read again")
    at = models.DateTimeField(help_text="of the newest verification")
    complete_at = models.DateTimeField(help_text="of the newest one that read everything")

    def __str__(self) -> str:
        return f"{self.ledger_id} up to transaction {self.sequence}"
