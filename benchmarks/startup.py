"""CPU seconds of `import ragcore` and of `ragcore --help`, above those of bare Python.

    python benchmarks/startup.py

Each is started `ROUNDS` times in turn with bare Python; the medians are compared. Aim: ≤ 0.3 s.
"""

import os
import statistics
import subprocess
import sys

ROUNDS = 7
COMMANDS = {
    "bare Python": ["-c", "pass"],
    "import ragcore": ["-c", "import ragcore"],
    "ragcore --help": ["-m", "ragcore.cli", "--help"],
    "ragcore ingest --help": ["-m", "ragcore.cli", "ingest", "--help"],
}


def main() -> None:
    """Print the median of each command and what it takes above bare Python."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            seconds[name].append(cpu_seconds([sys.executable, *arguments]))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        above = median - medians["bare Python"]
        print(f"{name:<24} {median:6.3f} CPU s   {above:+.3f} above bare Python")


def cpu_seconds(command: list[str]) -> float:
    """Run a command to its end and return the CPU time of user and system together."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


if __name__ == "__main__":
    main()
