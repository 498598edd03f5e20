"""How full the pools are."""

from dataclasses import dataclass

from api_pool.answers import CapacityAnswer
from api_pool.places import Board
from api_pool.streams import StreamBoard
from mt5kit.state.redis import LeaseStore, PlacementStore, StreamPlacementStore


@dataclass(frozen=True, slots=True)
class Capacity:
    """Counts what is in use.

    Args:
        board: The API terminals, and what each has room for.
        placements: Sessions on them.
        streams: Reservations of stream terminals.
        leases: Which replicas live.
        stream_board: The stream terminals.
    """

    board: Board
    placements: PlacementStore
    streams: StreamPlacementStore
    leases: LeaseStore
    stream_board: StreamBoard

    async def measure(self) -> CapacityAnswer:
        """The figures of this moment.

        Raises:
            StateUnavailable: The state store is away.
        """
        room = self.board.up()
        counts = await self.placements.counts([*room])
        terminals = await self.stream_board.look()
        sessions, most = sum(counts.values()), sum(room.values())
        return CapacityAnswer(
            # Of nothing there is no share; whoever scales on this must not act on it.
            api_pool_utilization=round(100 * sessions / most, 1) if most else None,
            current_replicas=len(await self.leases.replicas("api")),
            api_sessions=sessions,
            api_max_sessions=most,
            ws_accounts=await self.streams.taken(terminals.every),
            ws_max_accounts=terminals.room,
            ws_replicas=len(await self.leases.replicas("stream")),
        )
