"""A simulation's rows. `lifecycle` writes status, `recorder` what happened, `workers` who runs it; all else reads."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q, Value

from simulations.config import canonical
from training.figures import worse


class Status(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (Status.QUEUED, Status.RUNNING)


class Origin(models.TextChoices):
    """Who asked for it. A shell run belongs to its shell: workers leave it alone."""

    PAGE = "page"
    API = "api"
    SHELL = "shell"


class Starter(models.Model):
    """Who has simulations in the queue: an account, or an address where nobody has signed in, as a keyed hash.

    It is kept for as long as it decides whose turn it is. See running.turns.
    """

    who = models.CharField(max_length=64, unique=True)
    turn = models.IntegerField(default=-1, help_text="of the newest simulation")

    def __str__(self) -> str:
        return f"Starter {self.pk}"


class Simulation(models.Model):
    """One configured run."""

    origin = models.CharField(max_length=8, choices=Origin)
    status = models.CharField(max_length=9, choices=Status, default=Status.QUEUED)
    config = models.JSONField(help_text="all fields; resolved once the run has started")
    config_sha256 = models.CharField(max_length=64, blank=True, help_text="empty until the configuration is resolved")
    scheme = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="under which meaning of the configuration it was queued, and stays"
    )
    manifests = models.JSONField(
        default=list, db_default=Value([], models.JSONField()), blank=True,
        help_text="on what it was trained: an object for the start and for each time that it went on",
    )  # fmt: skip
    training_sha256 = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="of what training alone reads of the configuration",
    )
    dataset = models.CharField(max_length=16, help_text="resolved name; auto until the run has started")
    num_clients = models.PositiveIntegerField()
    num_rounds = models.PositiveIntegerField()
    fraction_fit = models.FloatField()
    archived = models.BooleanField(default=False)
    pruned_at = models.DateTimeField(
        null=True, blank=True, help_text="when details were let go of, see manage.py prune"
    )
    owned_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="simulations",
        help_text="who started it, signed in or by a token",
    )
    owned_by_id: int | None  # Django makes it
    idempotency_key = models.CharField(max_length=240, null=True, blank=True, unique=True)
    request_sha256 = models.CharField(max_length=64, blank=True, help_text="of the request that the key came with")

    needs_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="of memory at its peak, as estimated when it was queued"
    )

    # Its place in the queue: by turn, then by number.
    turn = models.PositiveIntegerField(default=0, db_default=0)
    starter = models.ForeignKey(
        Starter, null=True, blank=True, on_delete=models.SET_NULL, related_name="simulations", help_text="until the end"
    )

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    # Who runs it. Every write of a worker carries the fence; whoever holds an older one changes nothing.
    claimed_by = models.CharField(
        max_length=200, blank=True, db_column="owner", help_text="host:process:birth:token of the claim"
    )
    fence = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    lost_leases = models.PositiveSmallIntegerField(default=0, help_text="claims that ended without a word")

    # What has happened so far: kept beside the rows so that a list needs one query.
    last_sequence = models.PositiveIntegerField(default=0, help_text="of the newest event")
    rounds_done = models.PositiveIntegerField(default=0)
    loss = models.FloatField(null=True, blank=True, help_text="test set, newest evaluation")
    accuracy = models.FloatField(null=True, blank=True, help_text="test set, newest evaluation")
    num_parameters = models.PositiveIntegerField(null=True, blank=True)
    initial_loss = models.FloatField(null=True, blank=True, help_text="test set, untrained model")
    initial_accuracy = models.FloatField(null=True, blank=True, help_text="test set, untrained model")
    pool_microtokens = models.BigIntegerField(default=0, help_text="sum over rounds")
    paid_microtokens = models.BigIntegerField(default=0, help_text="what clients got of it")
    duration_seconds = models.FloatField(default=0.0, help_text="sum over rounds")
    weights_sha256 = models.CharField(max_length=64, blank=True, help_text="after the newest round")
    failure = models.TextField(blank=True, help_text="one plain sentence")
    traceback = models.TextField(blank=True)

    ledger = models.OneToOneField(
        "incentives.Ledger", on_delete=models.PROTECT, related_name="+", null=True, help_text="null while it is made"
    )
    ledger_id: int  # Django makes it
    ledger_head = models.CharField(max_length=64, blank=True, help_text="second copy, so that a cut tail is seen")
    ledger_length = models.PositiveIntegerField(default=0, help_text="second copy")

    class Meta:
        indexes = [  # noqa: RUF012
            models.Index("turn", "id", name="unfinished_in_turn", condition=Q(status__in=["queued", "running"])),
        ]

    def __str__(self) -> str:
        return f"Simulation {self.pk}"

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def configuration(self) -> dict[str, Any]:
        """`config` in today's form and words, whichever release queued it; see simulations.config.canonical."""
        return canonical(self.config, self.scheme)

    @property
    def warning(self) -> str:
        """A sentence where the run went badly as far as it is evaluated; empty where it did not."""
        return worse(self.initial_loss, self.loss)


class Worker(models.Model):
    """A process that runs what waits. It writes its row when it starts and every few seconds, and takes it away."""

    name = models.CharField(max_length=200, unique=True, help_text="host:process:birth, as a claim names it")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="by the database's clock")
    most_bytes = models.PositiveBigIntegerField(
        null=True, help_text="of memory that one simulation may need there, its FEDSITE_MAX_MEMORY"
    )

    def __str__(self) -> str:
        return f"Worker {self.name}"


class Duty(models.Model):
    """Work that one process does for all of them, under a lease."""

    name = models.CharField(max_length=64, unique=True)
    claimed_by = models.CharField(
        max_length=200, db_column="owner", help_text="host:process:token of whoever did it last"
    )
    lease_expires_at = models.DateTimeField(null=True, help_text="null between two looks")

    def __str__(self) -> str:
        return self.name


class AuditStatus(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Audit(models.Model):
    """A finished run that is trained again by a worker and compared with its record, because somebody asked. Of each
    simulation one waits or runs at a time. `running.audits` is the only writer."""

    simulation = models.ForeignKey(Simulation, on_delete=models.PROTECT, related_name="audits")
    simulation_id: int  # Django makes it
    status = models.CharField(max_length=9, choices=AuditStatus, default=AuditStatus.QUEUED)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="audits"
    )
    asked_by_id: int | None  # Django makes it
    asked_at = models.DateTimeField(auto_now_add=True)
    began_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    # What was found
    rounds = models.PositiveIntegerField(default=0, help_text="trained again and equal so far")
    payments = models.PositiveIntegerField(default=0, help_text="that were compared")
    economies = models.PositiveSmallIntegerField(default=0, help_text="that were compared")
    problem = models.TextField(blank=True, help_text="the first difference, or why it failed")

    # Its place in the queue, which is that of the simulations, and who does it, as of a simulation
    turn = models.PositiveIntegerField()
    starter = models.ForeignKey(
        Starter, null=True, blank=True, on_delete=models.SET_NULL, related_name="audits", help_text="until the end"
    )
    claimed_by = models.CharField(
        max_length=200, blank=True, db_column="owner", help_text="host:process:birth:token of the claim"
    )
    fence = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    lost_leases = models.PositiveSmallIntegerField(default=0, help_text="claims that ended without a word")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("simulation", condition=Q(ended_at=None), name="one_audit_at_a_time"),
        ]
        indexes = [  # noqa: RUF012
            models.Index("turn", "id", name="audits_in_turn", condition=Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"Audit of simulation {self.simulation_id}"


class Client(models.Model):
    """A data holder of a simulation, or one of its further identities, with the sums over rounds."""

    simulation = models.ForeignKey(Simulation, on_delete=models.PROTECT, related_name="clients")
    number = models.PositiveIntegerField()
    holder = models.PositiveIntegerField(null=True, help_text="number of whose identity it is; null: its own")
    num_examples = models.PositiveIntegerField(help_text="that it holds while its behaviour is in force")
    label_counts = models.JSONField(help_text="examples per label")
    behaviour = models.CharField(max_length=130)
    rounds = models.PositiveIntegerField(default=0, help_text="in whose cohort it was")
    contribution = models.FloatField(default=0.0, help_text="sum over rounds")
    contribution_variance = models.FloatField(
        null=True, help_text="sum over rounds of the squares of standard errors; null where nothing is estimated"
    )
    reward_microtokens = models.BigIntegerField(default=0, help_text="sum over rounds")
    slashed_microtokens = models.BigIntegerField(default=0, db_default=0, help_text="that its stake lost, over rounds")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("simulation", "number", name="one_client_of_a_number"),
            models.CheckConstraint(condition=Q(number__gte=1), name="clients_from_1"),
        ]

    def __str__(self) -> str:
        return f"Client {self.number} of simulation {self.simulation_id}"


class Round(models.Model):
    """One sample-train-aggregate-evaluate cycle, with the evidence that its payment rests on."""

    simulation = models.ForeignKey(Simulation, on_delete=models.PROTECT, related_name="rounds")
    simulation_id: int  # Django makes it
    number = models.PositiveIntegerField()
    cohort_size = models.PositiveIntegerField()
    loss = models.FloatField(null=True)
    accuracy = models.FloatField(null=True)
    previous_validation_loss = models.FloatField(null=True, help_text="of the model before the round")
    validation_loss = models.FloatField(null=True)
    best_validation_loss = models.FloatField(null=True, help_text="of the rounds before")
    carried = models.FloatField(null=True, help_text="what the model gains where nobody sends anything")
    pool_microtokens = models.BigIntegerField()
    minted_microtokens = models.BigIntegerField(null=True, help_text="null before scheme 3: the pool")
    burned_microtokens = models.BigIntegerField(default=0, db_default=0)
    treasury_microtokens = models.BigIntegerField(help_text="what of the pool nobody got")
    rule = models.CharField(max_length=140, blank=True, help_text="name@version of the reward rule")
    evidence = models.BinaryField(null=True, help_text="before scheme 3; since then see incentives.Evidence")
    evidence_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    economy_state = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="what valuation, pool and rule keep for the next round",
    )
    scores = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="by detector, of the cohort, ascending client numbers",
    )
    products_sha256 = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="of the products that its economy asked for"
    )
    weights_sha256 = models.CharField(max_length=64)
    checkpoint_sha256 = models.CharField(max_length=64, blank=True)
    train_seconds = models.FloatField()
    evaluate_seconds = models.FloatField()
    valuation_seconds = models.FloatField()
    duration_seconds = models.FloatField()

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("simulation", "number", name="one_round_of_a_number"),
            models.CheckConstraint(condition=Q(number__gte=1), name="rounds_from_1"),
            models.CheckConstraint(
                condition=Q(pool_microtokens__gte=0, treasury_microtokens__gte=0)
                & Q(treasury_microtokens__lte=F("pool_microtokens")),
                name="pool_covers_treasury",
            ),
        ]

    def __str__(self) -> str:
        return f"Round {self.number} of simulation {self.simulation_id}"


class Contribution(models.Model):
    """What a client's part in a round was worth, and what it was paid."""

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="contributions")
    client = models.ForeignKey(Client, on_delete=models.PROTECT, related_name="contributions")
    num_examples = models.PositiveIntegerField(null=True, help_text="that it reports; null before scheme 3")
    held = models.PositiveIntegerField(null=True, help_text="examples that it holds; null: as many as the client's row")
    effort = models.PositiveBigIntegerField(null=True, help_text="examples trained; null before scheme 3")
    untrained = models.BooleanField(
        default=False, db_default=False, help_text="the update that it sent is not of any training of its own"
    )
    value = models.FloatField(null=True, help_text="null without a valuation")
    error = models.FloatField(null=True, help_text="standard error, where the value is estimated")
    reward_microtokens = models.BigIntegerField()
    slashed_microtokens = models.BigIntegerField(null=True, help_text="that its stake lost; null without stakes")
    loss_before = models.FloatField(null=True)
    loss_after = models.FloatField(null=True)
    update_norm = models.FloatField()

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("round", "client", name="one_contribution_a_round"),
            models.CheckConstraint(condition=Q(reward_microtokens__gte=0), name="rewards_not_negative"),
        ]

    def __str__(self) -> str:
        return f"Contribution {self.pk}"


class Shadow(models.Model):
    """An economy beside the paying one, on the same training, with a ledger of its own that nobody else posts to."""

    simulation = models.ForeignKey(Simulation, on_delete=models.PROTECT, related_name="shadows")
    simulation_id: int  # Django makes it
    number = models.PositiveSmallIntegerField(help_text="from 1: those of the configuration, then those added later")
    label = models.CharField(max_length=60)
    specification = models.JSONField(help_text="what an economy consists of; resolved once the run has started")
    added_at = models.DateTimeField(null=True, blank=True, help_text="where it was priced after the run; null: with it")
    rounds_done = models.PositiveIntegerField(default=0)
    pool_microtokens = models.BigIntegerField(default=0, help_text="sum over rounds")
    paid_microtokens = models.BigIntegerField(default=0, help_text="what clients got of it")
    burned_microtokens = models.BigIntegerField(default=0, help_text="sum over rounds")
    ledger = models.OneToOneField("incentives.Ledger", on_delete=models.PROTECT, related_name="+")
    ledger_id: int  # Django makes it
    ledger_head = models.CharField(max_length=64, help_text="second copy, so that a cut tail is seen")
    ledger_length = models.PositiveIntegerField(default=0, help_text="second copy")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("simulation", "number", name="one_shadow_of_a_number"),
            models.UniqueConstraint("simulation", "label", name="one_shadow_of_a_label"),
            models.CheckConstraint(condition=Q(number__gte=1), name="shadows_from_1"),
        ]

    def __str__(self) -> str:
        return f"{self.label}, beside simulation {self.simulation_id}"


class ShadowRound(models.Model):
    """What a shadow made of a round; lists in the order of the cohort, ascending client numbers."""

    shadow = models.ForeignKey(Shadow, on_delete=models.PROTECT, related_name="rounds")
    shadow_id: int  # Django makes it
    number = models.PositiveIntegerField()
    contributions = models.JSONField()
    errors = models.JSONField(null=True, help_text="standard errors, where contributions are estimated")
    rewards = models.JSONField(help_text="micro-tokens")
    pool_microtokens = models.BigIntegerField()
    minted_microtokens = models.BigIntegerField()
    burned_microtokens = models.BigIntegerField()
    evidence_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    economy_state = models.JSONField(default=dict, blank=True, help_text="what it keeps for the next round")
    slashed = models.JSONField(null=True, help_text="micro-tokens that stakes lost; null without stakes")
    scores = models.JSONField(
        default=dict, db_default=Value({}, models.JSONField()), blank=True, help_text="by detector"
    )
    products_sha256 = models.CharField(max_length=64, blank=True, default="", db_default="")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("shadow", "number", name="one_shadow_round_of_a_number"),
        ]

    def __str__(self) -> str:
        return f"Round {self.number} of shadow {self.shadow_id}"


class ShadowClient(models.Model):
    """A client's sums over rounds in a shadow; who was never in a cohort has none."""

    shadow = models.ForeignKey(Shadow, on_delete=models.PROTECT, related_name="clients")
    number = models.PositiveIntegerField(help_text="the client's")
    contribution = models.FloatField(default=0.0)
    contribution_variance = models.FloatField(null=True, help_text="as of a simulation's client")
    reward_microtokens = models.BigIntegerField(default=0)
    slashed_microtokens = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("shadow", "number", name="one_shadow_client_of_a_number"),
        ]

    def __str__(self) -> str:
        return f"Client {self.number} in shadow {self.shadow_id}"


class Event(models.Model):
    """One line of what happened; numbered within its simulation without gap, in the order of commits."""

    simulation = models.ForeignKey(Simulation, on_delete=models.PROTECT, related_name="events")
    sequence = models.PositiveIntegerField()
    kind = models.CharField(max_length=16)
    at = models.DateTimeField(auto_now_add=True)
    message = models.TextField()
    data = models.JSONField(default=dict, help_text="the kind's own fields")

    class Meta:
        constraints = [  # noqa: RUF012
            models.UniqueConstraint("simulation", "sequence", name="events_without_repeat"),
        ]

    def __str__(self) -> str:
        return f"{self.sequence} {self.kind}: {self.message}"
