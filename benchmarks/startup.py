"""How long `import oncoseg` and `oncoseg --help` take in fresh processes, beside `import torch`.

    python benchmarks/startup.py [--quick]

Target: both under 0.3 s. The commands are run in turn, so that all see the same load.
"""

import argparse

from _common import Child, print_hardware, print_table, run_python, spread

COMMANDS = {
    "python, nothing else": ["-c", "pass"],
    "import oncoseg": ["-c", "import oncoseg"],
    "oncoseg --help": ["-m", "oncoseg", "--help"],
    "import torch": ["-c", "import torch"],
}

ROUNDS, QUICK_ROUNDS = 15, 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    rounds = QUICK_ROUNDS if parser.parse_args().quick else ROUNDS
    print_hardware()
    for arguments in COMMANDS.values():
        run_python(*arguments)
    ended: dict[str, list[Child]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            ended[name].append(run_python(*arguments))
    rows = [
        [
            name,
            spread([1000 * child.seconds for child in of_one], 0),
            spread([1000 * child.processor_seconds for child in of_one], 0),
        ]
        for name, of_one in ended.items()
    ]
    print_table([f"fresh process, median of {rounds} (range)", "ms", "processor ms"], rows)


if __name__ == "__main__":
    main()
