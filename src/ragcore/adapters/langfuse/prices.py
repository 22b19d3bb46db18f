"""What language models cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens that a model reads, and that it writes."""

    input: float
    output: float

    def details(self, *, read: int, written: int) -> dict[str, float]:
        """Return the cost of so many tokens, in the words that Langfuse has for it."""
        spent = {"input": read * self.input / 1e6, "output": written * self.output / 1e6}
        return spent | {"total": sum(spent.values())}
