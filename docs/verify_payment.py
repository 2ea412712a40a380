"""Derive the hashes of a round's payments again, from what a site tells of it; the standard library is enough.

    python verify_payment.py http://127.0.0.1:8000/api/simulations/12/rounds/3/evidence/
    python verify_payment.py evidence.json

See docs/payments.md. Ends with status 1 and what is wrong first, or 0.
"""

import base64
import hashlib
import json
import struct
import sys
import urllib.request


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


def check(told):
    """Yield each claim with whether it is so."""
    if told["facts_sha256"]:
        yield "facts hash", sha256(b"fedsite facts 1\n", encode(told["facts"])) == told["facts_sha256"]
    for table in told["utilities"]:
        if table["base64"] is not None:
            yield f"utilities {table['sha256']}", sha256(base64.b64decode(table["base64"])) == table["sha256"]
    for economy in told["economies"]:
        posted, fields = economy["transaction"], ("contributions", "errors", "pool", "minted", "burned", "shares")
        payment = {name: economy[name] for name in (*fields, "utilities_sha256", "state")}
        payment["specification"] = economy["hashed"]
        if economy["economy_sha256"]:
            derived = sha256(b"fedsite economy 1\n", encode(payment))
            yield f"economy hash of {economy['label']}", derived == economy["economy_sha256"]
            memo = {"round": told["round"], "facts_sha256": told["facts_sha256"], "economy_sha256": derived}
            yield f"memo of {economy['label']}", posted["memo"] == memo
        if posted:
            moved = [["mint", "treasury", economy["minted"], "pool"], ["treasury", "burn", economy["burned"], "burn"]]
            paid = zip(told["facts"]["cohort"], economy["shares"], strict=True)
            moved += [["treasury", f"client:{client}", share, "reward"] for client, share in paid]
            yield f"transfers of {economy['label']}", posted["transfers"] == [each for each in moved if each[2]]
            body = {"version": 1} | {name: posted[name] for name in ("sequence", "key", "description", "memo")}
            body |= {name: posted[name] for name in ("reverses", "transfers")}
            text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            record = hashlib.sha256(b"\0" + text).digest()
            chained = sha256(bytes.fromhex(posted["previous_hash"]), record)
            yield f"chain hash of {posted['ledger']}, transaction {posted['sequence']}", chained == posted["hash"]


if __name__ == "__main__":
    where = sys.argv[1]
    with urllib.request.urlopen(where) if where.startswith("http") else open(where, "rb") as file:
        told = json.load(file)
    for claim, is_so in check(told):
        print("is so:" if is_so else "IS NOT SO:", claim)
        if not is_so:
            sys.exit(1)
