"""Derive what a round's payments rest on again, from what a site tells of it; the standard library is enough.

    python verify_payment.py http://127.0.0.1:8000/api/simulations/12/rounds/3/evidence/
    python verify_payment.py evidence.json [12 3]      a kept answer, and of which simulation and round it should be

Shows that every number told is the one that the ledger's transaction commits to: facts, specification, contributions,
shares, state, utilities, transfers, each by its hash. Of what was measured by shapley, leave_one_out or
loss_improvement the contributions are computed again from the utilities, and so are shares by proportional; of other
kinds, and for pools, `manage.py recompute` does it. Does not show that utilities and facts are what training gave
(`manage.py audit_simulation` trains again), nor that the transaction is still in the ledger: hold its chain hash
against an export. See docs/payments.md. Status 0: all is so; 1: what is not so is named; 2: there is nothing to check.
"""

import base64
import hashlib
import json
import math
import re
import struct
import sys
import urllib.request
from fractions import Fraction

DEFAULTS = {"game": "server", "utility": "loss", "utility_weights": "fixed", "pool": {"kind": "improvement"}}
DEFAULTS |= {"burn_share": 0.0, "budget_tokens": None}
DEFAULTS |= {"stake": 0.0, "detectors": [], "slashing": [], "slashed_to": "treasury"}
USUAL = {  # parameters of kinds
    "permutation": {"evaluations": None},
    "antithetic": {"evaluations": None},
    "stratified": {"evaluations": None},
    "truncated_monte_carlo": {"evaluations": None, "tolerance": 0.01},
    "gtg_shapley": {"evaluations": None, "round_tolerance": 0.001, "tolerance": 0.001},
    "complementary": {"evaluations": None},
    "regression": {"evaluations": None},
    "banzhaf": {"evaluations": None},
    "beta_shapley": {"evaluations": None, "alpha": 4.0, "beta": 1.0},
    "fedsv": {"evaluations": None, "normalised": False},
    "least_core": {"evaluations": None},
    "cgsv": {"decay": 0.95},
    "improvement": {"scaling_factor": 10.0},
    "improvement_each_round": {"scaling_factor": 10.0},
    "fixed": {"tokens": 10.0},
    "halving": {"tokens": 10.0, "rounds": 10},
    "decay": {"tokens": 10.0, "factor": 0.9},
    "treasury": {"tokens": 100.0, "rounds": 10},
    "wage_bonus": {"share": 0.2},
    "top_k": {"k": 3},
    "softmax": {"temperature": 1.0},
    "tullock": {"exponent": 2.0},
    "slashing": {"rate": 1.0},
    "reputation": {"decay": 0.95, "power": 1.0},
    "sybil_discount": {"by": "replication"},
}
VERSIONS = {"proportional": 2}  # of kinds, where it is not 1
EXACT = ("shapley", "leave_one_out", "loss_improvement")


class NothingToCheck(Exception):
    """The text is a sentence."""


def encode(value):
    if isinstance(value, bool) or value is None:
        return {None: b"n", True: b"t", False: b"f"}[value]
    if isinstance(value, int) and not 10**16 <= abs(value) <= sys.float_info.max:
        return b"i%d;" % value
    if isinstance(value, int | float):
        return b"d" + struct.pack("<d", value + 0.0)
    if isinstance(value, str):
        return b"s%d:" % len(value.encode()) + value.encode()
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return b"o" + b"".join(encode(name) + encode(value[name]) for name in sorted(value, key=str.encode)) + b"e"


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def hashed(specification):
    """What of a specification enters its hash: what is not at its default. Of a plug-in's choice all of it."""
    found = {}
    for name, value in specification.items():
        if isinstance(value, dict) and "/" not in value["kind"]:
            usual = USUAL.get(value["kind"], {})
            value = {each: value[each] for each in value if each not in usual or value[each] != usual[each]}
            if value["kind"] in VERSIONS:
                value["version"] = VERSIONS[value["kind"]]
        if name not in DEFAULTS or value != DEFAULTS[name]:
            found[name] = value
    return found


def table(content):
    """Players, and utilities by coalition, of which player i is bit i. ValueError for what is no such table."""
    body = content[:-32]
    if body[:8] != b"FEDGAME3" or len(body) < 20 or hashlib.sha256(body).digest() != content[-32:]:
        raise ValueError
    n, m, way = struct.unpack_from("<III", body, 8)
    at, width = 20 + 16 * n, -(-n // 8) if way == 0 else 0
    if len(body) != at + m * (width + 8):
        raise ValueError
    everyone = 2**n - 1
    if way == 0:
        numbers = [int.from_bytes(body[at + k * width : at + (k + 1) * width], "little") for k in range(m)]
    elif way == 1:
        numbers = range(m)
    elif way == 2:
        numbers = [*(everyone ^ 1 << player for player in reversed(range(n))), everyone]
    else:
        numbers = [0, *(1 << player for player in range(n))]
    utilities = struct.unpack_from(f"<{m}d", body, at + m * width)
    return struct.unpack_from(f"<{n}q", body, 20), dict(zip(numbers, utilities, strict=True))


def worth(kind, n, value):
    """Of each player. KeyError for a coalition that is not in the table."""
    everyone = 2**n - 1
    if kind == "leave_one_out":
        return [value[everyone] - value[everyone ^ 1 << player] for player in range(n)]
    if kind == "loss_improvement":
        return [value[1 << player] - value[0] for player in range(n)]
    if len(value) != 2**n:
        raise KeyError
    weights = [1 / (n * math.comb(n - 1, size)) for size in range(n)]
    return [
        math.fsum(
            weights[coalition.bit_count()] * (value[coalition | 1 << player] - value[coalition])
            for coalition in range(2**n)
            if not coalition >> player & 1
        )
        for player in range(n)
    ]


def proportional(contributions, sent, pool, turn):
    """Largest remainders; units between equals are dealt in turn."""
    weights = [
        Fraction(each) if here and each > 0 else Fraction() for each, here in zip(contributions, sent, strict=True)
    ]
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    exact = [each * pool / total for each in weights]
    paid = [math.floor(each) for each in exact]
    rank = [(paid[k] - exact[k], -weights[k]) for k in range(len(weights))]
    order = sorted(range(len(weights)), key=lambda k: (*rank[k], k))
    if left := pool - sum(paid):
        equals = [k for k in order if rank[k] == rank[order[left - 1]]]
        begin = order.index(equals[0])
        start = turn * (left - begin) % len(equals)
        order[begin : begin + len(equals)] = equals[start:] + equals[:start]
        for k in order[:left]:
            paid[k] += 1
    return paid


def check(told, asked=None):
    """Yield each claim with whether it is so; None where it is not computed here. `asked`: simulation and round."""
    facts, simulation, number = told["facts"], told["simulation"], told["round"]
    if asked is not None:
        yield f"of simulation {asked[0]}, round {asked[1]}", [simulation, number] == list(asked)
    yield "facts hash", sha256(b"fedsite facts 1\n", encode(facts)) == told["facts_sha256"]
    yield f"facts of round {number}", facts["round_number"] == number
    yield "an economy paid", bool(told["economies"])
    contents = {each["sha256"]: base64.b64decode(each["base64"]) for each in told["utilities"] if each["base64"]}
    contents |= {each["sha256"]: base64.b64decode(each["base64"]) for each in told["products"] if each["base64"]}
    for name, content in contents.items():
        yield f"utilities or products {name}", sha256(content) == name
    for economy in told["economies"]:
        yield from check_economy(economy, facts, told["facts_sha256"], simulation, contents)
    ledgers = [economy["ledger"] for economy in told["economies"]]
    yield "each economy has a ledger of its own", len(set(ledgers)) == len(ledgers)


def check_economy(economy, facts, facts_sha256, simulation, contents):
    label, posted, number = economy["label"], economy["transaction"], facts["round_number"]
    if posted is None:
        raise NothingToCheck(f"Of {label} no transaction is told: it posted nothing for this round.")
    payment = {name: economy[name] for name in ("contributions", "errors", "pool", "minted", "burned", "shares")}
    payment |= {name: economy[name] for name in ("utilities_sha256", "state")}
    payment |= {name: economy[name] for name in ("slashed", "scores", "products_sha256") if economy[name]}
    derived = sha256(b"fedsite economy 1\n", encode(payment | {"specification": economy["hashed"]}))
    yield f"economy hash of {label}", derived == economy["economy_sha256"]
    memo = {"round": number, "facts_sha256": facts_sha256, "economy_sha256": derived}
    yield f"memo of {label}", posted["memo"] == memo
    specification = economy["specification"]
    yield f"specification of {label}", hashed(specification) == economy["hashed"]

    own = f"simulation-{simulation}" + ("" if label == "paying" else "-[1-9][0-9]*")
    is_own = re.fullmatch(own, posted["ledger"]) and posted["ledger"] == economy["ledger"]
    is_reward = (posted["key"], posted["reverses"]) == (f"round:{number}:reward", None)
    yield f"ledger of {label}", bool(is_own and is_reward)
    moved = [["mint", f"client:{client}", stake, "endowment"] for client, stake in economy["stakes"]]
    moved += [[f"client:{client}", f"stake:{client}", stake, "stake"] for client, stake in economy["stakes"]]
    moved += [["mint", "treasury", economy["minted"], "pool"], ["treasury", "burn", economy["burned"], "burn"]]
    paid = zip(facts["cohort"], economy["shares"], strict=True)
    moved += [["treasury", f"client:{client}", share, "reward"] for client, share in paid]
    lost = zip(facts["cohort"], economy["slashed"] or [0] * len(facts["cohort"]), strict=True)
    moved += [[f"stake:{client}", specification["slashed_to"], each, "slash"] for client, each in lost]
    yield f"transfers of {label}", posted["transfers"] == [each for each in moved if each[2]]
    body = {"version": 1} | {name: posted[name] for name in ("sequence", "key", "description", "memo")}
    body |= {name: posted[name] for name in ("reverses", "transfers")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    chained = sha256(bytes.fromhex(posted["previous_hash"]), hashlib.sha256(b"\0" + text).digest())
    yield f"chain hash {chained} of {posted['ledger']}, transaction {posted['sequence']}", chained == posted["hash"]

    kind = specification["valuation"]["kind"]
    sent = facts.get("sent", [loss is not None for loss in facts["losses_before"]])
    content = contents.get(economy["utilities_sha256"])
    if economy["products_sha256"] is not None:
        yield f"products of {label} are told", economy["products_sha256"] in contents
    if economy["utilities_sha256"] is not None or kind in EXACT:
        yield f"utilities of {label} are told, neither pruned nor too large", content is not None
    if kind in EXACT and content is not None:
        try:
            players, value = table(content)
            of_client = dict(zip(players, worth(kind, len(players), value), strict=True))
        except (ValueError, KeyError):
            of_client = None
        told = zip(facts["cohort"], economy["contributions"], strict=True)
        yield (
            f"contributions of {label} by {kind}",
            of_client is not None
            and of_client.keys() <= set(facts["cohort"])
            and all(abs(of_client.get(who, 0.0) - each) <= 1e-9 * max(1.0, abs(each)) for who, each in told),
        )
    else:
        yield f"contributions of {label} by {kind}", None
    if economy["scores"] or economy["slashed"]:
        yield f"scores and lost stakes of {label} from its products", None
    rule, pool = specification["reward_rule"]["kind"], economy["pool"] - economy["burned"]
    if rule == "proportional":
        shares = proportional(economy["contributions"], sent, pool, number - 1)
        yield f"shares of {label} by {rule}", shares == economy["shares"]
    else:
        yield f"shares of {label} by {rule}", None


def read(where):
    """What is told there. NothingToCheck."""
    try:
        with urllib.request.urlopen(where) if where.startswith("http") else open(where, "rb") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise NothingToCheck(f"{where} tells nothing that could be checked: {error}.") from None


def main(where="", *asked):
    if where in ("-h", "--help"):
        print(__doc__)
        return 0
    in_address = re.search(r"/simulations/([0-9]+)/rounds/([0-9]+)/evidence/", where)
    asked = asked or (in_address and in_address.groups()) or ()
    try:
        if not where or len(asked) not in (0, 2) or not all(map(str.isdecimal, asked)):
            raise NothingToCheck("Expected the address of a round's evidence, or a file with it; see --help.")
        for claim, is_so in check(read(where), tuple(map(int, asked)) or None):
            print({True: "is so:", False: "IS NOT SO:", None: "not computed here:"}[is_so], claim)
            if is_so is False:
                return 1
    except NothingToCheck as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        print(f"{where} is not a round's evidence: {type(error).__name__}: {error}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
