"""The seed that is to come after an account's own."""

from dataclasses import dataclass

from pki2fad.keyring import Account


@dataclass(frozen=True, slots=True)
class Successor:
    """The seed that an account gets when the first code of it is accepted, or at the deadline."""

    account: Account  # of the same name
    deadline: int | None  # the Unix time at which it is dropped, or with `cutover` the account's own seed
    cutover: bool

    def is_due(self, wall: float) -> bool:
        """True from the deadline on."""
        return self.deadline is not None and wall >= self.deadline

    def is_like(self, other: "Successor") -> bool:
        """True if both have the same seed and parameters, and the same end."""
        ends = (self.deadline, self.cutover) == (other.deadline, other.cutover)
        return ends and self.account.is_like(other.account)
