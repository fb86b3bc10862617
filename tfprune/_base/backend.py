"""Imports Keras before anything else does, so that a missing backend is explained."""

from tfprune._base.packages import check_backend

check_backend()
