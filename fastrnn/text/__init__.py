"""Text models: a character language model and a classifier."""

from fastrnn.text._training import Record as Record
from fastrnn.text.char_lm import CharLM as CharLM
from fastrnn.text.char_lm import split as split
from fastrnn.text.char_lm import training_speed as training_speed
from fastrnn.text.classifier import TextClassifier as TextClassifier

__all__ = ["CharLM", "Record", "TextClassifier"]
