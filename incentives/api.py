"""The ledger as JSON, under /api/incentives/. Who may read and write is decided at the API's root."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.conf import settings
from django.db.models import Model, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from ninja import Header, Query, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import BeforeValidator, ConfigDict, Field

from incentives import by_hand, ledger, sight
from incentives.chain import GENESIS
from incentives.models import Account, Ledger, Transfer
from incentives.paging import Problem, page
from incentives.rewards import MICROTOKENS, improvement_pool

MOST = 2**63 - 1
NEWEST = 1000  # transactions that the compatible ledger lists

router = Router(tags=["incentives"])


def _number(value: Any) -> Any:
    """JSON has no way to mean a number by true or "1"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


Number = Annotated[int, Field(ge=0, le=MOST)]
JsonInteger = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(_number)]
JsonNumber = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
LedgerName = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9-]*$")]
AccountName = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9:]*$")]


class Page(Schema):
    """A page of a list, and which ledgers it is about."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: int | None = Field(None, ge=1, le=MOST, description="from the Link header of the page before")
    ledger: LedgerName | None = Field(None, description="simulation-12, manual, ...")
    simulation_id: Number | None = None


class AccountsPage(Page):
    client: Number | None = None


class TransfersPage(AccountsPage):
    account: AccountName | None = Field(None, description="mint, treasury, client:3, ...")
    user_id: Number | None = Field(None, description="the compatible form: this client over all ledgers")


class TransferOut(Schema):
    ledger: str
    sequence: int = Field(description="of its transaction, from 1 within the ledger")
    position: int = Field(description="from 1 within its transaction")
    debit: str
    credit: str
    amount_microtokens: int
    code: str
    key: str
    description: str
    recorded_at: datetime
    hash: str = Field(description="chain hash of its transaction")


class UserTransaction(Schema):
    timestamp: datetime
    amount: float = Field(description="tokens; negative where they were taken")
    description: str


class UserLedger(Schema):
    user_id: int
    balance: float = Field(description="tokens")
    transactions: list[UserTransaction]


class AccountOut(Schema):
    ledger: str
    account: str
    client: int | None
    balance_microtokens: int


class VerificationOut(Schema):
    ledger: str
    ok: bool | None = Field(description="as the newest verification found it; null before the first one")
    transactions: int = Field(description="up to which all was well")
    transfers: int
    head: str = Field(description="chain hash there")
    problem: str | None
    length: int = Field(description="transactions that there are now; those beyond `transactions` are verified next")
    verified_at: datetime | None = Field(description="of the newest verification, which goes on from the one before")
    complete_at: datetime | None = Field(description="of the newest one that read the ledger from its beginning")


class RewardIn(Schema):
    model_config = ConfigDict(extra="forbid")

    user_id: JsonInteger
    previous_metric: JsonNumber = Field(ge=-1e6, le=1e6)
    current_metric: JsonNumber = Field(ge=-1e6, le=1e6)
    scaling_factor: JsonNumber = Field(10.0, ge=0, le=1e6)


class RewardOut(Schema):
    user_id: int
    reward: float = Field(description="tokens")
    new_balance: float | None = Field(
        description="tokens, over all ledgers; null for whoever may not see the ledger of rewards by hand"
    )


@router.get("/ledger", response={200: list[TransferOut] | UserLedger, 422: Problem})
def transfers(request: HttpRequest, response: HttpResponse, filters: Query[TransfersPage]) -> Any:
    """Transfers, newest first. With `user_id` alone: a client's balance and transactions over all ledgers."""
    if filters.user_id is not None:
        _refuse_unknown(request, filters)
        _refuse_beside_user_id(filters)
        return user_ledger(request, filters.user_id)
    rows = _transfers_of(request, filters).select_related("transaction__ledger", "debit_account", "credit_account")
    return [_transfer(row) for row in _page(request, response, rows.order_by("-pk"), filters)]


@router.get("/accounts/", response={200: list[AccountOut], 422: Problem})
def accounts(request: HttpRequest, response: HttpResponse, filters: Query[AccountsPage]) -> Any:
    """Accounts with their balances, newest first."""
    rows = _accounts_of(request, filters).select_related("ledger").order_by("-pk")
    return [
        {
            "ledger": row.ledger.name,
            "account": row.name,
            "client": row.client,
            "balance_microtokens": row.balance,
        }
        for row in _page(request, response, rows, filters)
    ]


@router.get("/verify/", response={200: list[VerificationOut], 422: Problem})
def verify(request: HttpRequest, response: HttpResponse, filters: Query[Page]) -> Any:
    """The state of the chains, newest ledger first, as found in the background; `verify_ledger` reads all now."""
    rows = sight.ledgers(request).filter(_ledgers(filters)).select_related("verified").order_by("-pk")
    return [_verification(row) for row in _page(request, response, rows, filters)]


def _verification(row: Ledger) -> dict[str, Any]:
    found = getattr(row, "verified", None)
    return {
        "ledger": row.name,
        "ok": found and not found.problem,
        "transactions": found.sequence if found else 0,
        "transfers": found.transfers if found else 0,
        "head": found.hash if found else GENESIS,
        "problem": (found.problem or None) if found else None,
        "length": row.length,
        "verified_at": found and found.at,
        "complete_at": found and found.complete_at,
    }


@router.post("/reward", response={200: RewardOut, 403: Problem, 409: Problem, 422: Problem, 429: Problem})
def reward(
    request: HttpRequest,
    response: HttpResponse,
    payload: RewardIn,
    idempotency_key: Annotated[
        str | None, Header(None, alias="Idempotency-Key", min_length=1, max_length=100, pattern=r"^[!-~]+$")
    ] = None,
) -> Any:
    """Reward a client by hand: max(0, previous - current) x scaling tokens, on the ledger `manual`.

    With an Idempotency-Key header a repeat pays nothing more. In login access it takes the permission "Can mint rewards
    by hand", in open access one address has 1,000 tokens a day.
    """
    is_open = settings.FEDSITE_ACCESS == "open"
    if not is_open and not request.user.has_perm("incentives.reward_by_hand"):
        raise HttpError(403, "Rewards by hand take the permission to mint them, which the admin gives")
    microtokens = _pool(payload)
    if is_open and microtokens > by_hand.MOST_MICROTOKENS:
        raise HttpError(422, f"scaling_factor: {by_hand.TooMuch(0)}, and this is {microtokens / MICROTOKENS:,}")
    try:
        if microtokens or idempotency_key:
            by_hand.pay(
                payload.user_id,
                microtokens,
                {name: repr(value) for name, value in payload.dict().items()},
                actor=request.user.get_username(),
                key=idempotency_key,
                address=request.address if is_open else None,
            )
    except by_hand.AnotherReward:
        raise HttpError(409, f"Idempotency-Key: {idempotency_key} came with another reward before") from None
    except by_hand.TooMuch as error:
        response["Retry-After"] = str(error.seconds)
        return Status(429, {"detail": f"{error}; go on in {error.seconds} s"})
    except ledger.LedgerError as error:
        raise HttpError(422, f"scaling_factor: {error}") from None
    sees_everything = not sight.condition(request, "pk")
    return {
        "user_id": payload.user_id,
        "reward": microtokens / MICROTOKENS,
        "new_balance": _balance(request, payload.user_id) / MICROTOKENS if sees_everything else None,
    }


OF_STAKES = {"endowment": "Endowment, to be put at stake", "stake": "Put at stake"}


def user_ledger(request: HttpRequest, client: int) -> dict[str, Any]:
    """The compatible ledger: a balance in tokens, and the newest 1,000 transfers, oldest first. Of ledgers that pay."""
    mine = sight.accounts(request).filter(client=client, ledger__is_shadow=False)
    rows = sight.transfers(request).filter(Q(debit_account__in=mine) | Q(credit_account__in=mine))
    newest = rows.select_related("transaction", "credit_account").order_by("-pk")[:NEWEST]
    return {
        "user_id": client,
        "balance": _balance(request, client) / MICROTOKENS,
        "transactions": [
            {
                "timestamp": row.transaction.recorded_at,
                "amount": (row.amount if row.credit_account.client == client else -row.amount) / MICROTOKENS,
                "description": OF_STAKES.get(row.code, row.transaction.description),
            }
            for row in reversed(newest)
        ],
    }


def _balance(request: HttpRequest, client: int) -> int:
    """Micro-tokens over all ledgers that pay and that the reader sees."""
    return (
        sight.accounts(request).filter(client=client, ledger__is_shadow=False).aggregate(sum=Sum("balance"))["sum"] or 0
    )


def _refuse_unknown(request: HttpRequest, filters: Page) -> None:
    """A misspelt filter would otherwise answer with everything."""
    unknown = sorted(set(request.GET) - set(type(filters).model_fields))
    if unknown:
        raise HttpError(422, f"{unknown[0]}: there is no such parameter")


def _refuse_beside_user_id(filters: TransfersPage) -> None:
    others = sorted(filters.model_fields_set - {"user_id"})
    if others:
        raise HttpError(422, f"{others[0]}: does not go with user_id, which asks for everything of one client")


def _pool(payload: RewardIn) -> int:
    try:
        return improvement_pool(payload.previous_metric, payload.current_metric, payload.scaling_factor)
    except ValueError as error:
        raise HttpError(422, f"scaling_factor: {error}") from None


def _ledgers(filters: Page, prefix: str = "") -> Q:
    names = [filters.ledger] if filters.ledger is not None else []
    if filters.simulation_id is not None:
        names.append(f"simulation-{filters.simulation_id}")
    condition = Q()
    for name in names:
        condition &= Q(**{f"{prefix}name": name})
    return condition


def _accounts_of(request: HttpRequest, filters: AccountsPage) -> QuerySet[Account]:
    rows = sight.accounts(request).filter(_ledgers(filters, "ledger__"))
    return rows if filters.client is None else rows.filter(client=filters.client)


def _transfers_of(request: HttpRequest, filters: TransfersPage) -> QuerySet[Transfer]:
    rows = sight.transfers(request).filter(_ledgers(filters, "transaction__ledger__"))
    if filters.client is None and filters.account is None:
        return rows
    held = _accounts_of(request, filters)
    if filters.account is not None:
        held = held.filter(name=filters.account)
    return rows.filter(Q(debit_account__in=held) | Q(credit_account__in=held))


def _transfer(row: Transfer) -> dict[str, Any]:
    return {
        "ledger": row.transaction.ledger.name,
        "sequence": row.transaction.sequence,
        "position": row.position,
        "debit": row.debit_account.name,
        "credit": row.credit_account.name,
        "amount_microtokens": row.amount,
        "code": row.code,
        "key": row.transaction.key,
        "description": row.transaction.description,
        "recorded_at": row.transaction.recorded_at,
        "hash": row.transaction.hash,
    }


def _page(request: HttpRequest, response: HttpResponse, rows: QuerySet, filters: Page) -> list[Model]:
    """The rows after the cursor; a Link header tells the next page if there is one."""
    _refuse_unknown(request, filters)
    return page(request, response, rows, limit=filters.limit, cursor=filters.cursor)
