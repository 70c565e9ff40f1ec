"""What the command line shows: on a terminal, in a log, for programs."""
