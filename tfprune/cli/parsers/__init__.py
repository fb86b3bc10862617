"""The parsers of the subcommands; the standard library alone is imported here."""
