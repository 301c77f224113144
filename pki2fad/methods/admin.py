"""The methods for administrators about one account: load and remove authenticators.

A method changes no account itself: the `Edit` of its answer does, once it is kept and applied. `Bulk` has the
methods that are about all accounts, `KeyMethods` those about the host's keys.
"""

from collections.abc import Iterator
from typing import Any

from pki2fad.errors import AccountExists, BadRequest
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.sealed import SealedSeeds
from pki2fad.methods.table import Arguments
from pki2fad.rules import otp
from pki2fad.rules.access import Peer
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator, Successor, drift_of_waiting
from pki2fad.rules.changes import PROMOTED, Answer, Edit
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.times import moment
from pki2fad.transfer.restore import Upload
from pki2fad.wire.forms import MAIN

_LAST_DEADLINE = 253_402_300_799  # the last second of the year 9999: later times have no date


class Admin:
    """The methods for one account."""

    def __init__(self, keyring: Keyring, watch: Watch, keys: Keys) -> None:
        self._keyring = keyring
        self._watch = watch
        self._keys = keys
        self._seeds = SealedSeeds(keyring, keys)
        self.upload = Upload()

    def load(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Load a sealed seed: for a new account, or for an authenticator of one."""
        deadline, cutover = args.get("deadline"), args.get("cutover", False)
        if args.get("successor", False):
            if cutover and deadline is None:
                raise BadRequest("a cutover needs a deadline")
            if deadline is not None and not reading.wall < deadline <= _LAST_DEADLINE:
                raise BadRequest("the deadline must be a Unix time after now and before the year 10000")
        elif cutover or deadline is not None:
            raise BadRequest("only a successor has a deadline or a cutover")
        new = self._new(args, reading)
        if args.get("successor", False):
            # A successor has no offset, but its seed may have left one behind.
            last_step = self._keyring.watermark(new)
            drift = drift_of_waiting(last_step, new.parameters.period)
            waiting = new.changed(last_step=last_step, drift=drift, offset=0)
            successor = Successor(waiting, deadline, cutover)
            return self._load_successor(successor, args.get("replace", False), reading)
        edit, done = self.edit_to_load(new, args.get("replace", False), reading)
        details = {"authenticator": args["label"]} if "label" in args else None
        return Answer(self._loaded(new.name, edit, reading), change=edit, audit=done, details=details)

    def _new(self, args: Arguments, reading: Reading) -> Account:
        """An account with the authenticator that the request loads. Raises `BadSeal` and `BadRequest`."""
        new, counter = self._seeds.account(args, reading), args.get("counter")
        if counter is None:
            return new
        otp.require_counter(counter, kind=new.parameters.kind)
        new.raise_to(counter - 1)
        return new

    def _loaded(self, name: str, edit: Edit | None, reading: Reading) -> dict[str, Any]:
        """The result of a `load` with this edit."""
        after = edit.put if edit is not None else self._keyring.account(name).settled(reading.wall)
        count = 0 if after is None else len(after.authenticators)
        return {"account": name, "changed": edit is not None, "authenticators": count}

    def edit_to_load(
        self, account: Account, replace: bool, reading: Reading, planned: Account | None = None
    ) -> tuple[Edit | None, str]:
        """The edit that gives an account this authenticator, None if it has it, and a word for the audit.

        Other authenticators stay. `planned` is the account as an earlier edit leaves it. Raises
        `AccountExists`, and `BadRequest` if there is no room for it.
        """
        current = self._keyring.accounts.get(account.name)
        settled = planned or (current and current.settled(reading.wall))
        old = settled and settled.authenticator(account.label)
        if settled is None or old is None:
            return self._put(account, reading, planned=planned), "added"
        if not old.is_like(account):
            if not replace:
                which = "" if account.label == MAIN else f"authenticator {account.label!r} of "
                raise AccountExists(f"{which}account {account.name!r} has another seed or other parameters")
            return self._put(account, reading, planned=planned), "replaced"
        stays, done = old, []
        if replace and old.successor is not None:
            stays, done = stays.changed(successor=None), ["dropped"]
        if old.is_hotp and account.last_step > old.last_step:
            stays, done = stays.changed(last_step=account.last_step), [*done, "advanced"]
        if not done:
            return None, "unchanged"
        return self._edit(account.name, settled.replaced(old, stays), current, reading), " ".join(done)

    def _load_successor(self, successor: Successor, replace: bool, reading: Reading) -> Answer:
        """Load a seed that an authenticator gets later."""
        waiting = successor.authenticator
        current = self._keyring.account(waiting.name)
        settled = current.settled(reading.wall)
        followed = self._keyring.authenticator(settled, waiting.label)
        if waiting.digest in {one.digest for one in settled.authenticators}:
            raise BadRequest("the account has this seed already; a successor needs another one")
        _require_other_seeds(settled, waiting)
        known = followed.successor
        if known is not None and known.is_like(successor):
            return Answer(self._loaded(current.name, None, reading), audit="unchanged")
        if known is not None and not replace:
            raise AccountExists(f"account {current.name!r} has a successor already")
        put = settled.replaced(followed, followed.changed(successor=successor))
        edit = self._edit(current.name, put, current, reading)
        result = self._loaded(current.name, edit, reading)
        deadline = successor.deadline and moment(successor.deadline)
        details = {"deadline": deadline, "cutover": successor.cutover}
        if waiting.label != MAIN:
            details["authenticator"] = waiting.label
        return Answer(result, change=edit, audit="successor", details=details)

    def due(self, reading: Reading) -> Iterator[tuple[Edit, str]]:
        """The edits for successors whose deadline has passed, and a word for the log.

        Each is made when it is asked for. The time must be believed: no seed is lost for good because the
        clock was wrong.
        """
        wall = self._watch.believed(reading.wall)
        for account in self._keyring.with_successor():
            put = account.settled(wall)
            if put is account or self._keyring.accounts.get(account.name) is not account:
                continue
            due = [one.successor for one in account.authenticators if not one.is_settled(wall)]
            what = [PROMOTED if successor and successor.cutover else "dropped" for successor in due]
            yield self._edit(account.name, put, account, reading), " ".join(what)

    def provision(self, name: str, sealed: bytes, file_digest: bytes, reading: Reading) -> Edit:
        """The edit for a file of `seeds.d`, which is about the authenticator `main`.

        Raises `BadSeal`, or `BadRequest` if the file is for another account or label, or there is no room.
        """
        main = {"sealed": sealed, "account": name, "label": MAIN}
        return self._put(self._seeds.account(main, reading), reading, file_digest)

    def remove(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Remove an account, an authenticator of one, or an enrolment. Its codes stay spent."""
        name, label = args["account"], args.get("label")
        if label is not None:
            account = self._keyring.account(name)
            if account.authenticator(label) is None and self._keyring.enrolments.drop(name, label):
                return _without(account, label)
            return self.remove_authenticator(name, label, reading)
        if name not in self._keyring.accounts and self._keyring.enrolments.drop(name):
            return Answer({"account": name}, audit="removed")
        account = self._keyring.account(name)
        edit = self._edit(account.name, None, account, reading)
        return Answer({"account": account.name}, change=edit, audit="removed")

    def remove_authenticator(
        self, name: str, label: str, reading: Reading, planned: Account | None = None
    ) -> Answer:
        """Remove one authenticator, never the last. `planned` is the account as an earlier edit leaves it."""
        current = self._keyring.account(name)
        settled = planned or current.settled(reading.wall)
        self._keyring.authenticator(settled, label)
        put = settled.without(label)
        if put is None:
            raise BadRequest(
                f"{label!r} is the last authenticator of account {name!r}; add another first, or an"
                " administrator removes the account, without a label"
            )
        return _without(put, label, self._edit(name, put, current, reading))

    def close(self) -> None:
        """Wipe the keys and codes in memory."""
        self.upload.drop()
        self._keys.close()

    def _put(
        self,
        account: Account,
        reading: Reading,
        file_digest: bytes | None = None,
        planned: Account | None = None,
    ) -> Edit:
        """The edit that gives an account this authenticator. Others stay.

        Raises `BadRequest` if there is no room for it.
        """
        current = self._keyring.accounts.get(account.name)
        settled = planned or (current and current.settled(reading.wall))
        put = account
        if settled is not None:
            old = settled.authenticator(account.label)
            if old is not None and old.is_like(account):
                put = settled  # the live authenticator stays
            else:
                if old is None:
                    settled.require_room()
                _require_other_seeds(settled, account)
                put = settled.with_authenticator(account)
        return self._edit(account.name, put, current, reading, file_digest)

    def _edit(
        self,
        name: str,
        put: Account | None,
        current: Account | None,
        reading: Reading,
        file_digest: bytes | None = None,
    ) -> Edit:
        gone = self._keyring.ended(current, put)
        return Edit(name, self._watch.believed(reading.wall), put, gone, file_digest)


def _without(account: Account, label: str, edit: Edit | None = None) -> Answer:
    """The answer once an account has no such authenticator."""
    result = {"account": account.name, "label": label, "authenticators": len(account.authenticators)}
    return Answer(result, change=edit, audit="removed", details={"authenticator": label})


def _require_other_seeds(account: Account, new: Authenticator) -> None:
    """Raise `BadRequest` if another authenticator of the account has this seed: a code would be of both."""
    for one in account.authenticators:
        if one.label != new.label and new.digest in {seed.digest for seed in one.own_seeds}:
            raise BadRequest(f"account {account.name!r} has this seed already, as {one.label!r}")
