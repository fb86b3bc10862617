"""Channels: the layers that make, pass on and read each channel, and groups of channels that can
only be removed together."""

from tfprune._channels.graph import ChannelGroup, Member, dependency_groups
from tfprune._channels.ledger import Call, Flow, Ledger
from tfprune._channels.rules.table import register_channel_rule

__all__ = [
    "Call",
    "ChannelGroup",
    "Flow",
    "Ledger",
    "Member",
    "dependency_groups",
    "register_channel_rule",
]
