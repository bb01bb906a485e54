"""The tasks: one preset a file, each with its prompt, its target, its way to read an answer, and its metrics."""

from pomona.data.tasks.base import Task, tasks
from pomona.data.tasks.extractive_qa import ExtractiveQA
from pomona.data.tasks.summarization import Summarization

__all__ = ["ExtractiveQA", "Summarization", "Task", "tasks"]
