"""Atomic writing of files, and model files."""
