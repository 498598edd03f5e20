"""What other replicas did to accounts, heard here, so that nothing old is answered."""

from api_pool.directory import AccountDirectory
from api_pool.fleet import Fleet
from api_pool.looks import Looks
from mt5kit.errors import AccountNotFound, Conflict
from mt5kit.state.redis import Control, ControlChannel


class Invalidation:
    """Forgets accounts that were disconnected, deleted or given new credentials elsewhere.

    A message that is lost costs little: rows are read again after two seconds, and every look is
    checked against the identity in its row.

    Args:
        control: Where it is told.
        directory: Forgets rows.
        looks: Forgets looks.
        fleet: Forgets sessions.
    """

    def __init__(
        self, control: ControlChannel, directory: AccountDirectory, looks: Looks, fleet: Fleet
    ) -> None:
        self._control = control
        self._directory = directory
        self._looks = looks
        self._fleet = fleet

    async def listen(self) -> None:
        """Heed what is told, for ever."""
        async for account_id, control in self._control.listen(self.missed):
            self.heed(account_id, control)

    def missed(self) -> None:
        """Messages may have been lost: nothing that one might have changed is taken for granted."""
        self._directory.invalidate_all()
        self._fleet.forget_refusals()

    def heed(self, account_id: str, control: Control) -> None:
        """Forget what is no longer true of the account."""
        self._directory.invalidate(account_id)
        if control is Control.CREDENTIALS:
            # They may be the ones that were refused here, and are good again.
            self._fleet.credentials_proven(account_id)
            return
        self._looks.drop(account_id)
        error = (
            AccountNotFound(f"no account {account_id!r}")
            if control is Control.DELETED
            else Conflict("the account was disconnected")
        )
        for owned in self._fleet.owned.values():
            owned.scheduler.forget(account_id, error)
