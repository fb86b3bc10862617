"""The parsers of the subcommands. They import only the standard library."""
