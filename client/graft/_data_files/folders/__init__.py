"""Folders of images and clips as data: their layout, and their files as rows."""
