from pytest import approx

from ragcore.adapters.langfuse.prices import Price


def test_prices_are_for_a_million_tokens() -> None:
    cost = Price(input=0.5, output=1.5).details(read=2_000_000, written=100_000)
    assert cost == {"input": approx(1.0), "output": approx(0.15), "total": approx(1.15)}
