"""Imports Keras first, so that a missing backend raises an error that says how to install one."""

from tfprune._base.packages import check_backend

check_backend()
