"""What every benchmark says, and how: figures, and a bar for each figure that an issue names."""

import argparse
import json
import sys


def bars(figures, below=(), at_least=(), exactly=()):
    """``{name: {value, bar, holds}}`` of figures that have a limit.

    Parameters
    ----------
    below, at_least, exactly : iterable of (name, bar)
    """
    made = {name: (bar, figures[name] < bar) for name, bar in below}
    made |= {name: (bar, figures[name] >= bar) for name, bar in at_least}
    made |= {name: (bar, figures[name] == bar) for name, bar in exactly}
    return {name: {"value": figures[name], "bar": bar, "holds": bool(holds)} for name, (bar, holds) in made.items()}


def options(description):
    """The options that every benchmark has; add to them before `parse_args`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return parser


def tell(figures, made, *, as_json):
    """Print the result and end, with 1 if a bar does not hold."""
    result = {"figures": figures, "bars": made}
    lines = [f"{name}: {value:.4g}" for name, value in figures.items()]
    lines += [f"{name}: {b['value']:.4g}, bar {b['bar']:.4g}, holds: {b['holds']}" for name, b in made.items()]
    sys.stdout.write((json.dumps(result) if as_json else "\n".join(lines)) + "\n")
    sys.exit(not all(bar["holds"] for bar in made.values()))
