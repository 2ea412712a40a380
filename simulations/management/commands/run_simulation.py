"""Run one simulation in the foreground, recorded beside whatever a server does on the same database."""

import argparse
import asyncio
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

import kinds
from extensions import catalogue
from simulations import database, estimates, plugins, processes, reading
from simulations.config import CHOICES, FIELDS, SimulationConfig, without_unread
from simulations.models import Origin, Simulation, Status
from simulations.presets import PRESETS
from simulations.running import lifecycle, worker
from simulations.running.recorder import Claim
from simulations.running.unrecorded import unrecorded
from simulations.showing import results
from simulations.showing.progress import Progress, table
from training.config import ConfigError

EXIT = {Status.COMPLETED: 0, Status.FAILED: 1, Status.CANCELLED: 1}
INTERRUPTED = 130
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_SECONDS = 0.5


class Command(BaseCommand):
    help = __doc__
    number: int | None = None  # of the simulation that is run or followed

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = argparse.HelpFormatter
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        parser.add_argument("--no-record", action="store_true", help="leave the database alone")
        parser.add_argument("--resume", type=int, metavar="ID", help="go on with a run, or follow a live one")
        add_fields(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["no_record"]:
            database.require()
        try:
            code = asyncio.run(self.work(options))
        except (KeyboardInterrupt, asyncio.CancelledError):
            code = INTERRUPTED
            self.say_goodbye()
        if code:
            sys.exit(code)

    def say_goodbye(self) -> None:
        """How to go on. The terminal may be gone: then nobody reads it."""
        how = f"; go on with: python manage.py run_simulation --resume {self.number}" if self.number else ""
        with suppress(OSError):
            sys.stderr.write(f"\nSimulation {self.number or 'without a record'} is interrupted{how}\n")
            sys.stderr.flush()

    async def work(self, options: dict[str, Any]) -> int:
        processes.end_gently(asyncio.current_task(), *END_SIGNALS, say=lambda: None)
        progress = Progress(sys.stderr)
        if options["resume"] is not None:
            if options.get("fields"):
                raise CommandError("--resume: takes no other fields; the run has its configuration", returncode=2)
            self.number = await resumable(options["resume"])
            return await self.report(await followed(self.number, progress), options)
        config = await asyncio.to_thread(configuration, options.get("fields", {}))
        try:
            if options["no_record"]:
                limits = {"most_bytes": settings.FEDSITE_MAX_MEMORY, "most_seconds": settings.FEDSITE_MAX_SECONDS}
                estimates.refuse(config, **limits)
                happened = [event async for event in progress.show(unrecorded(config.to_dict(), config.scheme))]
                return self.say(results.of_events(happened), options)
            self.number = (await asyncio.to_thread(lifecycle.queue, config, origin=Origin.SHELL)).pk
        except ConfigError as error:
            raise CommandError(str(error), returncode=2) from None
        return await self.report(await followed(self.number, progress), options)

    async def report(self, simulation_id: int, options: dict[str, Any]) -> int:
        simulation = await Simulation.objects.aget(pk=simulation_id)
        result = await asyncio.to_thread(results.of_simulation, simulation)
        result["economy_sums"] = await asyncio.to_thread(results.economy_sums, simulation)
        return self.say(result, options)

    def say(self, result: dict[str, Any], options: dict[str, Any]) -> int:
        if options["json"]:
            self.stdout.write(json.dumps(result))
        else:
            self.stdout.write(table(result))
        return EXIT.get(result["status"], 1)


def add_fields(parser: CommandParser) -> None:
    """Options for every field of a configuration; what is given is gathered in `fields`."""
    fields = parser.add_argument_group("configuration, later options win")
    fields.add_argument("--preset", action=Values, metavar="NAME", help=f"one of {', '.join(PRESETS)}")
    fields.add_argument("--config", action=Values, metavar="FILE.json", help="a file with a JSON object of fields")
    fields.add_argument("--set", action=Values, metavar="FIELD=VALUE", help="one field; --set a.b=1 reaches inside")
    for name in (*FIELDS, *SimulationConfig.FLAT):
        fields.add_argument(f"--{name.replace('_', '-')}", action=Values, metavar="VALUE", help=field_help(name))


class Values(argparse.Action):
    """Gathers fields in the order in which they were given."""

    def __call__(self, parser, namespace, value, option=None) -> None:
        fields = getattr(namespace, "fields", None) or {}
        namespace.fields = fields
        try:
            if self.dest == "preset":
                fields |= preset(value)
            elif self.dest == "config":
                fields |= from_file(value)
            elif self.dest == "set":
                assign(fields, value)
            else:
                fields[self.dest] = reading.value_or_text(value)
        except ValueError as error:
            parser.error(f"{option}: {error}")


def preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ValueError(f"{name!r} is not one of {', '.join(PRESETS)}")
    return dict(PRESETS[name].values)


def from_file(path: str) -> dict[str, Any]:
    try:
        values = reading.value(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except reading.Unreadable as error:
        where = f"{error.field}: " if error.field else ""
        raise ValueError(f"{path}: {where}{error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return without_unread(values)


def assign(fields: dict[str, Any], text: str) -> None:
    """behaviours.3.kind=free_rider sets one value inside a field."""
    path, equals, value = text.partition("=")
    *outer, last = path.strip().split(".")
    if outer and isinstance(kind := fields.get(outer[0], CHOICES.get(outer[0]) and FIELDS[outer[0]].default), str):
        fields[outer[0]] = {"kind": kind}
    if not equals or not last or len(outer) > reading.MOST_DEPTH:
        raise ValueError(f"{text[:80]!r} is not FIELD=VALUE")
    for part in outer:
        inner = fields.get(part, {})
        fields[part] = dict(inner) if isinstance(inner, dict) else {}
        fields = fields[part]
    fields[last] = reading.value_or_text(value)


def field_help(name: str) -> str:
    if name in SimulationConfig.FLAT:
        of_choice, parameter_name = SimulationConfig.FLAT[name]
        having = [kind for kind in kinds.family(CHOICES[of_choice]).values() if parameter_name in kind.parameters]
        parameter = having[0].parameters[parameter_name]
        defaults = sorted({f"{kind.parameters[parameter_name].default} for {kind.name}" for kind in having})
        facts = [parameter.bounds_text, "; ".join(defaults) if parameter.default is not None else ""]
        help = f"{parameter.help}, as --set {of_choice}.{parameter_name}"
    elif name in CHOICES:
        help, facts = FIELDS[name].metadata["help"], [", ".join(kinds.family(CHOICES[name])), FIELDS[name].default]
    else:
        help, parameter = FIELDS[name].metadata["help"], FIELDS[name].metadata["parameter"]
        facts = []
        if parameter is not None:
            default = "" if parameter.default is None else f"default {parameter.default}"
            facts = [", ".join(parameter.choices), parameter.bounds_text, default]
    told = "; ".join(fact for fact in facts if fact)
    return (help + (f" ({told})" if told else "")).replace("%", "%%")


def configuration(fields: dict[str, Any]) -> SimulationConfig:
    try:
        catalogue.current.settle()
        return plugins.with_todays_sources(SimulationConfig.from_dict(fields, drops=None))
    except ConfigError as error:
        raise CommandError(str(error), returncode=2) from None


async def follow_own(claim: Claim, progress: Progress) -> None:
    async for _ in progress.show(worker.run(claim)):
        pass


async def resumable(simulation_id: int) -> int:
    """The number of a run that can be followed to its end; a failed or cancelled one is this shell's to go on with."""
    first = await Simulation.objects.filter(pk=simulation_id).afirst()
    if first is None:
        raise CommandError(f"--resume: there is no simulation {simulation_id}", returncode=2)
    await asyncio.to_thread(catalogue.current.settle)
    if first.is_finished:
        try:
            await asyncio.to_thread(lifecycle.resume, simulation_id, by_shell=True)
        except lifecycle.Conflict as error:
            raise CommandError(f"--resume: {error}", returncode=2) from None
    return simulation_id


async def followed(simulation_id: int, progress: Progress) -> int:
    """To the end, whoever runs it; where nobody does, we. Its number."""
    while not (simulation := await Simulation.objects.aget(pk=simulation_id)).is_finished:
        if claim := await asyncio.to_thread(take_if_free, simulation):
            await follow_own(claim, progress)
        elif simulation.status == Status.QUEUED and (
            missing := await asyncio.to_thread(plugins.lacking, simulation.config)
        ):
            raise CommandError(f"Simulation {simulation_id} waits for a worker that has it: {'; '.join(missing)}")
        else:
            progress.waiting(simulation)
            await asyncio.sleep(LOOK_SECONDS)
    return simulation_id


def take_if_free(simulation: Simulation) -> Claim | None:
    """A run of a shell that is gone, or one whose lease has run out; what waits in the queue is the workers'."""
    if lifecycle.is_lost(simulation) or (simulation.status == Status.QUEUED and simulation.origin == Origin.SHELL):
        return lifecycle.take(simulation)
    return None
