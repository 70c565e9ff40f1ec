"""The Graft server: streams of labelled examples in, served classifiers out. Start reading at `app`."""
