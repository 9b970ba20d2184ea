"""Pseudo labels that are made once and read from a file: the labeler, and the stages around it."""
