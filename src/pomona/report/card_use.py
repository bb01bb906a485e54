"""The code of a model card: load the adapter and answer a prompt as Pomona answered it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_LOAD = """import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter = {base!r}, "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
"""
_LOAD_WHOLE = """import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
"""
_PLAIN = """prompt = {prompt!r}
tokens = tokenizer(prompt, return_tensors="pt")
"""
_CHAT = """messages = {messages!r}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False{arguments})
tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
"""
_GENERATE = """output = model.generate(
    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], max_new_tokens={most}, do_sample=False
)
answer = tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
"""
_STOP = """for stop in {stop!r}:
    answer = answer.partition(stop)[0]
"""
_LINE = """answer = next((line.strip() for line in answer.splitlines() if line.strip()), "")
"""


@dataclass(frozen=True)
class Use:
    """How an adapter is used.

    Args:
        base: what transformers loads.
        prompt: an example's; None: a placeholder.
        chat: whether the prompt is a user's message.
        system: the system's message.
        arguments: of the chat template.
        max_new_tokens: longest answer.
        line: whether an answer is one line.
        stop: texts that end an answer.
        answer: what the code prints; None: not known.
        whole: the folder is a whole model.
    """

    base: str
    prompt: str | None = None
    chat: bool = False
    system: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    max_new_tokens: int = 64
    line: bool = False
    stop: Sequence[str] = ()
    answer: str | None = None
    whole: bool = False

    def markdown(self) -> str:
        """A fenced block of Python, and what it prints."""
        prompt = "Write the prompt here." if self.prompt is None else self.prompt
        if self.chat:
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            given = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
            ask = _CHAT.format(messages=[*system, {"role": "user", "content": prompt}], arguments=given)
        else:
            ask = _PLAIN.format(prompt=prompt)
        code = (_LOAD_WHOLE if self.whole else _LOAD.format(base=self.base)) + ask + _GENERATE.format(most=self.max_new_tokens)
        code += (_STOP.format(stop=tuple(self.stop)) if self.stop else "") + (_LINE if self.line else "") + "print(answer)"
        fence = "`" * max(3, 1 + max((len(run) for run in _runs(code)), default=0))
        told = "" if self.answer is None else f"\n\nThis is the first test example. The answer in the run: {self._shown()}"
        return f"{fence}python\n{code}\n{fence}{told}"

    def _shown(self) -> str:
        text = " ".join((self.answer or "").split())
        mark = "`" * (1 + max((len(run) for run in _runs(text)), default=0))
        return f"{mark} {text} {mark}" if text else "nothing."


def _runs(text: str) -> list[str]:
    """Runs of backticks."""
    found, run = [], ""
    for character in text + " ":
        if character == "`":
            run += character
        elif run:
            found.append(run)
            run = ""
    return found
