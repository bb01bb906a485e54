"""The tasks: one preset per file, with its prompt, target, parser of answers, and metrics."""

from pomona.data.tasks.base import Task, tasks
from pomona.data.tasks.chat import Chat
from pomona.data.tasks.completion import Completion
from pomona.data.tasks.data_to_text import DataToText
from pomona.data.tasks.extractive_qa import ExtractiveQA
from pomona.data.tasks.instruction import Instruction
from pomona.data.tasks.prompted import PromptedTask, Reading
from pomona.data.tasks.simplification import Simplification
from pomona.data.tasks.summarization import Summarization
from pomona.data.tasks.title_generation import TitleGeneration
from pomona.data.tasks.translation import Translation

__all__ = [
    "Chat",
    "Completion",
    "DataToText",
    "ExtractiveQA",
    "Instruction",
    "PromptedTask",
    "Reading",
    "Simplification",
    "Summarization",
    "Task",
    "TitleGeneration",
    "Translation",
    "tasks",
]
