"""Pruners: named recipes, and algorithms that run their own training loop."""

from tfprune.pruners.admm.callback import ADMM
from tfprune.pruners.at_once import one_shot
from tfprune.pruners.gradual import agp
from tfprune.pruners.lottery_ticket.rounds import LotteryTicket
from tfprune.pruners.lottery_ticket.tickets import Tickets
from tfprune.pruners.post_training.calibration import Calibration
from tfprune.pruners.post_training.owl import Owl
from tfprune.pruners.post_training.result import BlockResult, PostTrainingResult
from tfprune.pruners.post_training.without_training import magnitude, sparse_gpt, wanda
from tfprune.pruners.recipes import (
    activation_apoz_rank,
    activation_mean_rank,
    fpgm,
    l1_filter,
    l2_filter,
    level,
    slim,
    taylor_fo_weight,
)
from tfprune.pruners.search.auto_compress import AutoCompress
from tfprune.pruners.search.base import Search
from tfprune.pruners.search.objective import Objective
from tfprune.pruners.search.result import LayerShare, SearchResult
from tfprune.pruners.search.session import Trial

# isort: split
# Written by .ci/generate, from here
from tfprune.pruners.search.annealing import SimulatedAnnealing
from tfprune.pruners.search.netadapt import NetAdapt
from tfprune.pruners.search.sensitivity import SensitivitySearch

__all__ = [
    "ADMM",
    "AutoCompress",
    "BlockResult",
    "Calibration",
    "LayerShare",
    "LotteryTicket",
    "NetAdapt",
    "Objective",
    "Owl",
    "PostTrainingResult",
    "Search",
    "SearchResult",
    "SensitivitySearch",
    "SimulatedAnnealing",
    "Tickets",
    "Trial",
    "activation_apoz_rank",
    "activation_mean_rank",
    "agp",
    "fpgm",
    "l1_filter",
    "l2_filter",
    "level",
    "magnitude",
    "one_shot",
    "slim",
    "sparse_gpt",
    "taylor_fo_weight",
    "wanda",
]
# to here.
