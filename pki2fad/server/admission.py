"""Who gets in, and who pays: decided right after a connection is accepted, from what the kernel attests."""

from collections import Counter

from pki2fad.rules.access import OVERFLOW_ID, Access, Peer
from pki2fad.server.payer import ROOT, STRANGERS, Payer, PayerKey

# Connections beyond the caps that root may still make, to look at what is going on.
ROOT_RESERVE = 16

# Connections of one uid that has no role: it can only look at the status. (Somebody with a user namespace has
# thousands of uids: all of them together have at most half of all connections.)
WITHOUT_ROLE = 32


class Admission:
    """Counts connections against their caps, and knows the payers.

    `most` is the cap for all connections, half of which callers without a role may have; `most_of_payer` is
    that for each payer with a role.
    """

    def __init__(self, most: int, most_of_payer: int) -> None:
        self.most = most
        self.most_of_payer = most_of_payer
        self.count = 0  # connections
        self._payers: dict[PayerKey, Payer] = {}
        self._by_stranger: Counter[int] = Counter()  # those without a role, by uid

    def use(self, most: int, most_of_payer: int) -> None:
        """Go by these caps from now on; nobody who is in has to leave."""
        self.most, self.most_of_payer = most, most_of_payer

    @property
    def payers(self) -> list[Payer]:
        """All that there are."""
        return list(self._payers.values())

    def payer(self, access: Access, peer: Peer) -> Payer:
        """Who pays for this peer by these rules."""
        uid = access.payer(peer.uid) if access.has_some_role(peer) else OVERFLOW_ID
        key = STRANGERS if uid == OVERFLOW_ID else PayerKey(uid, peer.verify_only)
        payer = self._payers.get(key)
        if payer is None:
            payer = self._payers[key] = Payer(key)
        return payer

    def admit(self, payer: Payer, uid: int) -> bool:
        """Count one connection more of this payer and uid, if the caps allow it."""
        most = self.most_of_payer
        if payer.key == STRANGERS:
            if self._by_stranger[uid] >= WITHOUT_ROLE:
                return False
            most = self.most // 2
        reserve = ROOT_RESERVE if payer.key == ROOT else 0
        if self.count >= self.most + reserve or payer.connections >= most + reserve:
            return False
        self._add(payer, uid, 1)
        return True

    def leave(self, payer: Payer, uid: int) -> None:
        """A connection of this payer and uid ended."""
        self._add(payer, uid, -1)

    def move(self, payer: Payer, to: Payer, uid: int) -> None:
        """Another payer pays for a connection of this uid that is there."""
        self._add(payer, uid, -1)
        self._add(to, uid, 1)

    def forget(self) -> None:
        """Forget payers without connections, but not what they owe."""
        for key, payer in list(self._payers.items()):
            if not payer.connections and payer.credit >= 0:
                del self._payers[key]

    def _add(self, payer: Payer, uid: int, count: int) -> None:
        self.count += count
        payer.join(count)
        if payer.key == STRANGERS:
            self._by_stranger[uid] += count
            if not self._by_stranger[uid]:
                del self._by_stranger[uid]
