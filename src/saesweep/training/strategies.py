"""What Lightning is told of several ranks: next to nothing, since distributed.py does what there is to do."""
from lightning.pytorch.strategies import DDPStrategy


class PerMember(DDPStrategy):
    """DDP whose gradients are summed member by member inside the step, where every member is updated."""

    def configure_ddp(self) -> None:
        """No wrapper: there is nothing left to reduce after the step."""


class PerRank(PerMember):
    """Each rank has SAEs of its own, and exchanges activations, not gradients."""
