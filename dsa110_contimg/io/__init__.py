"""One module per foreign format or program."""
