"""Whole models: trained, used, streamed and kept."""
