"""How several ranks share a group of SAEs, as Lightning strategies. runtime/distributed.py does the communication."""
from lightning.pytorch.strategies import DDPStrategy


class PerMember(DDPStrategy):
    """All ranks train every SAE: its gradients are summed over the ranks inside the step, before its update."""

    ranks_share_saes = True

    def configure_ddp(self) -> None:
        """No DistributedDataParallel wrapper: nothing is left to reduce after the step."""


class PerRank(PerMember):
    """Each rank trains SAEs of its own; ranks exchange activations, not gradients."""

    ranks_share_saes = False
