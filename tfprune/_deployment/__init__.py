"""Files for other runtimes, and policies that say which layers gain there."""
