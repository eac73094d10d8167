"""Asking an expert a few questions about instances, and what the answers are worth.

Of a bag only the class is known. Instances whose verification promises most are chosen (`strategies`), the questions
kept in a table that a person, a terminal or a local page fills in (`questions`, `prompt`, `page`); what is learned then
takes the answers as constraints (`constraints`), and what was gained is said with an interval (`gains`).
"""

from metamed.asking.choosing import choose
from metamed.asking.constraints import constrained, learn_with
from metamed.asking.gains import Gain, gain
from metamed.asking.questions import UNSURE, Question, read_questions, write_questions
from metamed.asking.strategies import STRATEGIES, Standing, Strategy, strategy

__all__ = ["STRATEGIES", "UNSURE", "Gain", "Question", "Standing", "Strategy", "choose", "constrained", "gain",
           "learn_with", "read_questions", "strategy", "write_questions"]  # fmt: skip
