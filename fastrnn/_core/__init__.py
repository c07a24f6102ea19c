"""Forward and BPTT of layers and stacks over arrays: checked once, allocated once."""
