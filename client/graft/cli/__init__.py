"""The command `graft`: teach, ask, measure, promote and export models on a Graft server."""

from graft.cli.program import build_parser, main

__all__ = ["build_parser", "main"]
