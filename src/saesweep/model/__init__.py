"""Writes the file of conf/model for a language model: its blocks and sites are found by running a small copy of it."""
