"""Shrinking: removes silent channels from a model."""

from tfprune._channels.graph import ChannelGroup, Member, dependency_groups
from tfprune._channels.ledger import Call, Flow, Ledger
from tfprune._channels.rules.table import register_channel_rule
from tfprune.structural.blocks import remove_blocks
from tfprune.structural.experts import remove_experts
from tfprune.structural.fold import fold_batch_norm
from tfprune.structural.plan import GroupPlan, ShrinkPlan
from tfprune.structural.remove import remove_channels
from tfprune.structural.shrinking import plan_shrink, shrink
from tfprune.structural.statistics import recalibrate

__all__ = [
    "Call",
    "ChannelGroup",
    "Flow",
    "GroupPlan",
    "Ledger",
    "Member",
    "ShrinkPlan",
    "dependency_groups",
    "fold_batch_norm",
    "plan_shrink",
    "recalibrate",
    "register_channel_rule",
    "remove_blocks",
    "remove_channels",
    "remove_experts",
    "shrink",
]
