"""Inputs to features: the batcher, and the encoder that it feeds. Used by serving and adapting alike."""
