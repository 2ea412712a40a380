"""Points at a client that sends what it sent in the round before: its update is as long, to a millionth."""

from extensions import Kind, number


def as_before(facts, state, *, near):
    known = state.get("norms", {})
    scores = []
    for client, sent, norm in zip(facts.clients, facts.sent, facts.update_norms, strict=True):
        before = known.get(str(client), 0.0)
        far = abs(norm - before) / max(norm, before) if norm and before else 1.0
        scores.append(1.0 - min(1.0, far / near) if sent else 0.0)
    now = {str(client): norm for client, norm in zip(facts.clients, facts.update_norms, strict=True)}
    return scores, {"norms": known | now}


KINDS = (
    Kind(
        family="detector",
        name="as_before",
        help="How near an update's length is to that of the client's last one",
        source="ours",
        code=as_before,
        parameters={"near": number(1e-6, "Share of the length beyond which it scores 0", above=0.0, maximum=1.0)},
    ),
)
