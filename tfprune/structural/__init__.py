"""Shrinking: channels that are silent leave the model."""

from tfprune.channels.graph import ChannelGroup, Member, dependency_groups
from tfprune.channels.ledger import Call, Flow, Ledger
from tfprune.channels.rules import register_channel_rule
from tfprune.structural.fold import fold_batch_norm
from tfprune.structural.recalibrate import recalibrate
from tfprune.structural.remove import remove_channels
from tfprune.structural.shrink import GroupPlan, ShrinkPlan, plan_shrink, shrink

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
    "remove_channels",
    "shrink",
]
