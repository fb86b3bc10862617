"""Channels: who makes, passes on and reads each of them, and which stand or fall together."""

from tfprune.channels.graph import ChannelGroup, Member, dependency_groups
from tfprune.channels.ledger import Call, Flow, Ledger
from tfprune.channels.rules import register_channel_rule

__all__ = [
    "Call",
    "ChannelGroup",
    "Flow",
    "Ledger",
    "Member",
    "dependency_groups",
    "register_channel_rule",
]
