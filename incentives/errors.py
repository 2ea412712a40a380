"""What a ledger refuses. Each is told in one plain sentence; nothing was posted."""


class LedgerError(Exception):
    """The root of all of them."""


class InvalidTransaction(LedgerError):
    """It is not made of what a transaction is made of; the sentence names the part."""


class KeyConflict(LedgerError):
    """The key is taken by a transaction with other content."""


class AlreadyReversed(KeyConflict):
    """A transaction is reversed at most once."""


class InsufficientBalance(LedgerError):
    """An account would hold less than nothing."""


class SupplyExhausted(LedgerError):
    """More would be minted than JSON numbers count exactly (2**53)."""


class AppendOnly(LedgerError):
    """What was posted is neither changed nor deleted; corrections are reversals."""
