"""Command lines: thin, nothing heavy is imported before a command is called."""
