"""The fault ledger: kill everything at random while documents come in, then account for each.

    python benchmarks/faults.py [--kills 300] [--documents 1000] [--minutes 15] [--seed 1]

A real stack (PostgreSQL, Valkey, API, two workers, conversion children) in a data directory of its
own; three clients send new documents, new versions, repeats, deletions, cancellations and files
that can't be read, and repeat each request until it is acknowledged. Afterwards every `202` must be
one document, present once, with the chunks of a clean run. Aim: at least 300 kills over 1,000
documents with 0 lost, 0 duplicated, 0 stuck; a killed worker's job runs again within 10 s, an
emptied Redis is made good within 60 s. Exits with 1 when anything is off.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults.campaign import Plan, Report, run
from faults.faults import FAULTS
from faults.ledger import KINDS

_SHOWN = 5
_TAKEOVER_SECONDS = 10.0
_EMPTIED_SECONDS = 60.0


def main() -> int:
    """Run it and print what was done, measured and found."""
    arguments = _parse()
    plan = Plan(
        seed=arguments.seed,
        kills=arguments.kills,
        documents=arguments.documents,
        longest_seconds=arguments.minutes * 60,
        takeovers=arguments.takeovers,
        emptyings=arguments.emptyings,
    )
    report = run(plan, keep_wrong=arguments.keep)
    _print_faults(report)
    _print_times(report)
    _print_ledger(report)
    complaints = _complaints(report)
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    return int(bool(complaints))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=15.0, help="of killing, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--takeovers", type=int, default=12)
    parser.add_argument("--emptyings", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="where to copy the data directory if it is wrong")
    return parser.parse_args()


def _print_faults(report: Report) -> None:
    print(f"{'fault':<32}{'times':>8}{'kills':>8}")
    for name in FAULTS:
        print(f"{name:<32}{report.faults[name]:>8}{report.kills[name]:>8}")
    print(f"{'together':<32}{sum(report.faults.values()):>8}{report.total_kills:>8}")


def _print_times(report: Report) -> None:
    print(
        f"\n{report.requests} requests, {report.repeats} of them sent again;"
        f" {report.killing_seconds:.0f} s of killing, then {report.drain_seconds:.1f} s to the end"
        " of the last job"
    )
    _print_quantiles("a killed worker's job runs again", report.takeover_seconds)
    _print_quantiles("an emptied Redis is made good", report.emptied_seconds)


def _print_quantiles(what: str, seconds: Sequence[float]) -> None:
    if seconds:
        print(
            f"{what} after {statistics.median(seconds):.1f} s (median of {len(seconds)}),"
            f" {max(seconds):.1f} s at most"
        )


def _print_ledger(report: Report) -> None:
    ledger = report.ledger
    print(
        f"\nacknowledged {ledger.acknowledged} uploads of {ledger.documents} documents:"
        f" {dict(ledger.outcomes)}"
    )
    print(
        f"in place {ledger.in_place} documents with {ledger.chunks} chunks, as a clean run has"
        f" them; {ledger.deleted} deleted; {ledger.failed_as_they_must} unreadable files failed"
        f" with their code; {ledger.updates_failed} documents answer with an older version, as"
        f" they must; {ledger.orphans_swept} orphaned files swept\n"
    )
    for kind in KINDS:
        wrong = ledger.wrongs.get(kind, [])
        print(f"{kind:<40}{len(wrong):>6}")
        for what in wrong[:_SHOWN]:
            print(f"    {what[:500]}")
    print(f"{'left after stopping':<40}{len(report.orphans):>6}")
    for orphan in report.orphans[:_SHOWN]:
        print(f"    {orphan[:500]}")


def _complaints(report: Report) -> list[str]:
    """What was found, and what was not reached."""
    found = []
    if not report.is_clean:
        found.append("the account does not balance")
    if report.total_kills < report.plan.kills:
        found.append(f"{report.total_kills} kills, not {report.plan.kills}: give it more minutes")
    if report.ledger.documents < report.plan.documents:
        found.append(f"{report.ledger.documents} documents, not {report.plan.documents}")
    if max(report.takeover_seconds, default=0) > _TAKEOVER_SECONDS:
        found.append(f"a killed worker's job waited more than {_TAKEOVER_SECONDS:.0f} s")
    if max(report.emptied_seconds, default=0) > _EMPTIED_SECONDS:
        found.append(f"an emptied Redis took more than {_EMPTIED_SECONDS:.0f} s")
    return found


if __name__ == "__main__":
    sys.exit(main())
