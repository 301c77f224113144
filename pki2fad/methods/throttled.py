"""The methods `throttled` and `unthrottle`: administrators see which callers wait, and let them try again."""

import math
from collections.abc import Callable
from typing import Any

from pki2fad.errors import BadRequest
from pki2fad.methods.table import Arguments
from pki2fad.rules.access import Peer
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Answer, Edit, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces, in_pieces, sorted_names
from pki2fad.rules.refusals import Attempt, Refusals, Refused
from pki2fad.rules.tally import DAY, NO_TALLY, RESETS, RESETS_WITHIN, caller_of_name
from pki2fad.rules.throttle import ACCOUNT, COST_OF_UNKNOWN, Throttle, cost_of_failure
from pki2fad.wire import messages
from pki2fad.wire.messages import Encoded

LISTED = 1024  # throttled accounts in one answer: 64 KiB, or a MiB if all their known callers wait too

_LAST_UID = 2**32 - 1


class ThrottleAdmin:
    """The methods `throttled` and `unthrottle`. `payer` is as in `Access`."""

    def __init__(
        self,
        keyring: Keyring,
        throttle: Throttle,
        refusals: Refusals,
        watch: Watch,
        payer: Callable[[int], int],
    ) -> None:
        self._keyring = keyring
        self._throttle = throttle
        self._refusals = refusals
        self._watch = watch
        self._payer = payer

    def throttled(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """List the accounts for which callers wait now, or one account, and the last refusals."""
        name, uid, origin = args.get("account"), args.get("uid"), args.get("origin")
        if uid is None and origin is not None:
            raise BadRequest("with an origin a uid is needed too")
        if uid is not None and name is None:
            raise BadRequest("with a uid an account is needed too")
        if uid is not None and not 0 <= uid <= _LAST_UID:
            raise BadRequest(f"a uid is 0 to {_LAST_UID}")
        account = None if name is None else self._keyring.account(name)
        caller = None
        if account is not None and uid is not None:
            caller = self._caller(account, uid, origin or "", reading)
        return Answer(work=self._listed(account, caller, reading))

    def unthrottle(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Forget an account's failures: all its callers may try again at once."""
        current = self._keyring.account(args["account"])
        account = current.settled(reading.wall)
        now = self._throttle.now(reading)
        forced = account.tally.recent_resets(now) >= RESETS
        if forced and not args.get("force", False):
            raise BadRequest(
                f"account {account.name!r} was unthrottled {RESETS} times in {RESETS_WITHIN / DAY:.0f} days,"
                f" and each time gives strangers {ACCOUNT.capacity} more chances; --force does it anyway"
            )
        put = account.with_tally(account.tally.reset(now))
        gone = self._keyring.ended(current, put)
        left = RESETS - put.tally.recent_resets(now)
        return Answer(
            {"account": put.name, "left": left},
            change=Edit(put.name, self._watch.believed(reading.wall), put, gone),
            audit="unthrottled",
            details={"forced": forced},
        )

    def _listed(self, account: Account | None, caller: dict[str, Any] | None, reading: Reading) -> Work:
        name = None if account is None else account.name
        refused = yield from self._refused(name)
        if account is None:
            rows = yield from self._throttled(refused, reading)
        else:
            rows = [self._row(account, refused, reading)]
        refusals = yield from self._refused_last(name, reading)
        parts = [messages.encode_map_start(3)]
        for key, values in (("accounts", rows), ("refusals", refusals)):
            parts += [messages.encode(key), messages.encode_list_start(len(values))]
            for some in in_pieces(values):
                parts.append(b"".join(map(messages.encode, some)))
                yield None
        return Answer(Encoded([*parts, messages.encode("caller"), messages.encode(caller)]))

    def _throttled(self, refused: dict[bytes, Attempt], reading: Reading) -> Pieces[list[dict[str, Any]]]:
        """The first accounts, by name, for which callers wait."""
        now = self._throttle.now(reading)
        failing: dict[str, Account] = {}
        for some in in_pieces([*self._keyring.accounts.values()]):
            for account in some:
                if self._throttle.may_refuse(account.tally, _cost(account, reading), now):
                    failing[account.name] = account
            yield
        found: list[dict[str, Any]] = []
        for names in in_pieces((yield from sorted_names(failing))):
            rows = [self._row(failing[name], refused, reading) for name in names]
            found += [row for row in rows if row["until"] or any(known["until"] for known in row["known"])]
            if len(found) >= LISTED:
                break
            yield
        return found[:LISTED]

    def _refused_last(self, name: str | None, reading: Reading) -> Pieces[list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []
        for some in in_pieces(self._refusals.of(name)):
            found += [self._refusal(attempt, last, reading) for attempt, last in some]
            yield
        return found

    def _refused(self, name: str | None) -> Pieces[dict[bytes, Attempt]]:
        """The last callers refused for one account, or for all, by the digests of their marks.

        A digest alone does not name a caller.
        """
        found = {}
        for some in in_pieces(self._refusals.of(name)):
            for of, _ in some:
                account = self._keyring.accounts.get(of.account)
                if of.method == "verify" and account is not None:
                    found[self._throttle.key(of.uid, of.origin, account.caller).digest] = of
            yield
        return found

    def _row(self, account: Account, refused: dict[bytes, Attempt], reading: Reading) -> dict[str, Any]:
        throttle, tally, cost = self._throttle, account.tally, _cost(account, reading)
        now = throttle.now(reading)
        return {
            "account": account.name,
            "until": _until(throttle.wait_of_all(tally, cost, now), reading),
            "known": [
                {
                    "uid": of and of.uid,
                    "origin": of and of.origin,
                    "last_success": int(reading.wall - (now - known.succeeded)),
                    "until": _until(known.wait, reading),
                }
                for known in throttle.known(tally, now)
                for of in [refused.get(known.digest)]
            ],
        }

    def _caller(self, account: Account, uid: int, origin: str, reading: Reading) -> dict[str, Any]:
        attempt = Attempt("verify", self._payer(uid), origin, account.name)
        key = self._throttle.key(attempt.uid, origin, account.caller)
        return {
            "uid": uid,
            "origin": origin,
            "known": account.tally.mark(key.digest).is_known(self._throttle.now(reading)),
            "until": self._waits_until(attempt, reading),
        }

    def _refusal(self, attempt: Attempt, last: Refused, reading: Reading) -> dict[str, Any]:
        waits = self._waits_until(attempt, reading)
        return {**attempt._asdict(), **last._asdict(), "waits_until": waits}

    def _waits_until(self, attempt: Attempt, reading: Reading) -> int | None:
        """The Unix time until which this would be refused now, None if it would not."""
        throttle, account = self._throttle, self._keyring.accounts.get(attempt.account)
        if account is None:
            caller, cost = caller_of_name(attempt.account), COST_OF_UNKNOWN
            tally = throttle.tally_of_unknown(attempt.account)
        else:
            caller, cost, tally = account.caller, _cost(account, reading), account.tally
        if attempt.method == "resync":
            key = throttle.key_to_resync(attempt.uid, caller, tally.resets)
        else:
            key = throttle.key(attempt.uid, attempt.origin, caller, tally.resets)
        if attempt.method != "verify":
            tally = NO_TALLY  # other methods refuse callers for their own failures alone
        return _until(throttle.wait(key, tally, cost, throttle.now(reading)), reading)


def _cost(account: Account, reading: Reading) -> int:
    """The cost of a wrong code for the account."""
    return cost_of_failure(account.in_force(reading.wall))


def _until(wait: float, reading: Reading) -> int | None:
    """The Unix time at which the wait (seconds) is over, None if there is none."""
    return math.ceil(reading.wall + wait) if wait > 0 else None
