"""Which replica gets a conversation: the one with the fewest."""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from omni2_serve.ray_stopping import announce


class FewestConversations(RequestRouter):
    """Looks at all replicas. Ray's own router compares two of them at random, and may find both full while a third is
    free: nothing to a request of milliseconds, but a conversation would be refused.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All of them as equals: Ray asks each for its load and takes the least."""
        return [candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray says which replicas run: one that it has begun to stop is not among them."""
        super().update_replicas(replicas)
        announce(replicas)
