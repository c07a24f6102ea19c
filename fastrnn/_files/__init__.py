"""Files that are either there in full or not at all, and model files."""
