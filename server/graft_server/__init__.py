"""The Graft server: streams of labelled examples in, served classifiers out. Start reading at `app`."""

from graft_server import environment

environment.prepare()
