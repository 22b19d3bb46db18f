"""Question + passages → a prompt within a token budget.

Passages come from documents that anybody may have written. They stand between boundaries that
nobody can have written, since these are made from the whole prompt, and the model is told that
what stands there is quoted, whatever it says. What a chat template would take for the end of a
message, what no reader can see, and what would read as a marker is taken out of it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Final

from ragcore.errors import InvalidInput
from ragcore.model import Message, Passage
from ragcore.steps.citing import with_round_markers, without_markers
from ragcore.steps.sentences import sentence_spans


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to a language model, and what its markers `[n]` will mean."""

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    """Those that fitted, in the order of their numbers from 1."""


_HISTORY_SHARE: Final = 0.25
"""Most of the budget that earlier turns may take."""

_TURN_CHARACTERS: Final = 2000
"""What is read of one turn to understand a follow-up."""

_MESSAGE_OVERHEAD: Final = 8
"""Tokens that a chat template adds to a message: generous for the common ones."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
"""Control characters, marks of direction, tags: models read in them what no person sees."""

_CONTROL = re.compile(
    r"""[<＜](?=\s*[|｜])
      | <(?=/?(?:s|bos|eos|pad|unk|mask|think|start_of_turn|end_of_turn|tool_call|tool_response
               |tools?|system|assistant|user|human)>)
      | <(?=</?SYS>>)
      | \[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What the control tokens of chat templates open with: servers read them in quoted text, too, and
`<|eot_id|><|start_header_id|>system` there would begin a message of the system."""


def build_prompt(
    question: str,
    passages: Sequence[Passage],
    *,
    instructions: str,
    count_tokens: Callable[[str], int],
    max_tokens: int,
    history: Sequence[Message] = (),
) -> Prompt:
    """Return a prompt of at most `max_tokens`, by `count_tokens` and a bound for chat templates.

    `instructions` name `{boundary}`. Passages go in whole, best first, until one does not fit; the
    first one is cut after a sentence rather than left out. The latest turns of the history take
    what their share allows, without the markers of earlier answers, which would mean these
    passages now. Raises InvalidInput when not even the question fits.
    """
    question = _without_control(question)
    boundary = _boundary(
        question,
        *(turn.content for turn in history),
        *(text for passage in passages for text in (_source(passage), passage.text)),
    )
    system = Message("system", _with_boundary(instructions, boundary))
    budget = _Budget(count_tokens, max_tokens)
    if not (budget.take(system.content) and budget.take(_asked(question, []))):
        raise InvalidInput(
            f"the question {question[:80]!r} and its instructions take over {max_tokens} tokens: "
            "shorten it, or give the language model a longer context"
        )
    turns = _latest(history, _Budget(count_tokens, int(budget.left * _HISTORY_SHARE)))
    for turn in turns:
        budget.take(turn.content)
    kept = _fitting(passages, budget, boundary)
    quoted = [_quoted(passage, n, boundary) for n, passage in enumerate(kept, start=1)]
    asked = Message("user", _asked(question, quoted))
    return Prompt(messages=(system, *turns, asked), passages=tuple(kept))


class _Budget:
    """Tokens that are left."""

    def __init__(self, count_tokens: Callable[[str], int], tokens: int) -> None:
        self._count = count_tokens
        self.left = tokens

    def take(self, text: str) -> bool:
        """Spend what `text` takes, if there is so much."""
        needed = self._count(text) + _MESSAGE_OVERHEAD
        if needed > self.left:
            return False
        self.left -= needed
        return True


def build_condensing(
    question: str,
    history: Sequence[Message],
    *,
    instructions: str,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> tuple[Message, ...]:
    """Return the prompt that asks for a question which stands alone, of at most `max_tokens`.

    `instructions` name `{boundary}`. The latest turns go in, the beginning of each, as a quotation.
    Raises InvalidInput when not even the question fits.
    """
    question = _without_control(question)
    turns = [replace(turn, content=turn.content[:_TURN_CHARACTERS]) for turn in history]
    boundary = _boundary(question, *(turn.content for turn in turns))
    system = Message("system", _with_boundary(instructions, boundary))
    budget = _Budget(count_tokens, max_tokens)
    frame = _conversation([], boundary)
    if not (budget.take(system.content) and budget.take(f"{frame}\n\n{question}")):
        raise InvalidInput(
            f"the question {question[:80]!r} and its instructions take over {max_tokens} tokens"
        )
    quoted = _conversation(_latest(turns, budget), boundary)
    return system, Message("user", f"{quoted}\n\n{question}")


def build_rewriting(
    question: str,
    *,
    count: int,
    instructions: str,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> tuple[Message, ...]:
    """Return the prompt that asks for other wordings of a question, of at most `max_tokens`.

    `instructions` name `{boundary}`, and `{count}` for how many. Raises InvalidInput when the
    question does not fit.
    """
    question = _without_control(question)
    boundary = _boundary(question)
    told = _with_boundary(instructions.replace("{count}", str(count)), boundary)
    quoted = f"{boundary} question\n{question}\n{boundary} end of question"
    budget = _Budget(count_tokens, max_tokens)
    if not (budget.take(told) and budget.take(quoted)):
        raise InvalidInput(
            f"the question {question[:80]!r} and its instructions take over {max_tokens} tokens"
        )
    return Message("system", told), Message("user", quoted)


def _conversation(turns: Sequence[Message], boundary: str) -> str:
    lines = [f"{turn.role}: {turn.content}" for turn in turns]
    return "\n".join((f"{boundary} conversation", *lines, f"{boundary} end of conversation"))


def _with_boundary(instructions: str, boundary: str) -> str:
    return instructions.replace("{boundary}", boundary)


def _boundary(*texts: str) -> str:
    """Return a word that none of these texts can hold, short of inverting a hash of itself."""
    content = "\0".join(texts)
    return f"QUOTE-{blake2s(content.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _latest(history: Sequence[Message], budget: _Budget) -> list[Message]:
    kept: list[Message] = []
    for told in reversed(history):
        turn = replace(told, content=without_markers(_without_control(told.content)))
        if turn.role == "system" or not budget.take(turn.content):
            break
        kept.append(turn)
    return kept[::-1]


def _fitting(passages: Sequence[Passage], budget: _Budget, boundary: str) -> list[Passage]:
    kept: list[Passage] = []
    for number, passage in enumerate(passages, start=1):
        if budget.take(_quoted(passage, number, boundary)):
            kept.append(passage)
            continue
        if not kept and (cut := _cut(passage, budget, boundary)) is not None:
            kept.append(cut)
        break
    return kept


def _cut(passage: Passage, budget: _Budget, boundary: str) -> Passage | None:
    """Return as many first sentences of the passage as fit, None when not even one does."""
    for _, end in reversed(sentence_spans(passage.text)):
        shorter = replace(passage, text=passage.text[:end])
        if budget.take(_quoted(shorter, 1, boundary)):
            return shorter
    return None


def _quoted(passage: Passage, number: int, boundary: str) -> str:
    heading = f"[{number}] {_as_data(_source(passage))}".rstrip()
    return f"{boundary} {heading}\n{_as_data(passage.text)}\n{boundary} end of [{number}]"


def _source(passage: Passage) -> str:
    """Return in one line where a passage comes from."""
    source = " › ".join(part for part in (passage.title, *passage.headings) if part)
    return " ".join(source.split())


def _as_data(text: str) -> str:
    """Return what a document says without what a model would take for more than text."""
    return with_round_markers(_without_control(text))


def _without_control(text: str) -> str:
    """Return the text without what can't be seen, and with control tokens broken by a space."""
    return _CONTROL.sub(r"\g<0> ", _UNSEEN.sub("", text))


def _asked(question: str, quoted: Sequence[str]) -> str:
    return "\n\n".join((*quoted, question))
