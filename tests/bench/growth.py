"""Measures how speed and memory grow with the work, and draws it.

Sweeps the length of rows, the micro-batch, the adapter's rank and the number of
ranks, each alone; prints a Markdown table and writes an SVG with one panel a
sweep.

    python3 tests/bench/growth.py --lorica build/release/lorica --base DIR_BF16 --svg growth.svg

Needs nothing beyond Python and mpirun; takes about ten minutes on two cores.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from machine import processor
from rows import write_full_rows

HERE = pathlib.Path(__file__).parent
# Layers that ranks above 192 fit, the width of k and v of SmolLM2-135M.
WIDE = " ".join(f'target: "{name}_proj"' for name in ("q", "o", "gate", "up", "down"))
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@dataclasses.dataclass
class Run:
    """One point: a training run of a few steps."""
    length: int = 512
    micro_batch: int = 4
    rank: int = 8
    data: int = 1
    tensor: int = 1
    tokens_per_second: float = 0.0
    gigabytes: float = 0.0  # The peak of the rank that had most.

    @property
    def ranks(self):
        return self.data * self.tensor


@dataclasses.dataclass
class Sweep:
    title: str
    axis: str
    points: list  # (label, Run)


def sweeps():
    lengths = (128, 256, 512, 1024, 2048, 4096, 8192)
    return [
        Sweep("row length, 2048 tokens a step or one row", "tokens a row",
              [(n, Run(length=n, micro_batch=max(1, 2048 // n))) for n in lengths]),
        Sweep("micro-batch of rows of 512 tokens", "rows",
              [(n, Run(micro_batch=n)) for n in (1, 2, 4, 8, 16)]),
        Sweep("adapter rank, all linear layers but k and v", "rank",
              [(n, Run(rank=n)) for n in (1, 4, 16, 64, 256)]),
        Sweep("tensor ranks, sharing the machine's cores", "ranks",
              [(n, Run(tensor=n)) for n in (1, 2, 4)]),
        Sweep("data ranks, sharing the machine's cores", "ranks",
              [(n, Run(data=n)) for n in (1, 2, 4)]),
    ]


def measure(run, targets, options, folder):
    """Fills in what the run reached: the median of its steps but for the first."""
    directory = folder / "run"
    data = folder / f"rows_{run.length}.jsonl"
    if not data.exists():
        write_full_rows(options.data, run.length, 16, data)
    config = folder / "run.textproto"
    config.write_text(f"""\
model {{ path: "{options.base}" dtype: BF16 }}
adapter {{ rank: {run.rank} alpha: {2 * run.rank} {targets} }}
data {{ train: "{data}" sequence_length: {run.length} pack: false }}
train {{ steps: {options.steps} global_batch: {run.micro_batch * run.data} micro_batch: {run.micro_batch} }}
mesh {{ data: {run.data} tensor: {run.tensor} }}
checkpoint {{ directory: "{directory}" every_steps: 0 resume: "NEVER" }}
threads: {max(1, options.threads // run.ranks)}
""")
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(run.ranks)] if run.ranks > 1 else []
    done = subprocess.run([*launcher, options.lorica, "train", "--config", config], env=ENVIRONMENT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{run} failed:\n{done.stdout[-2000:]}")
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step_seconds" in line]
    run.tokens_per_second = statistics.median(line["tokens_per_second"] for line in steps[1:])
    run.gigabytes = max(line["peak_rss_bytes"] for line in steps) / 1e9
    subprocess.run(["rm", "-r", str(directory)], check=True)


def table(all_sweeps):
    lines = ["| work | | tokens/s | peak memory of a rank |", "|---|---|---|---|"]
    for sweep in all_sweeps:
        for label, run in sweep.points:
            lines.append(f"| {sweep.title} | {label} | {run.tokens_per_second:.0f} | {run.gigabytes:.2f} GB |")
    return "\n".join(lines)


class Panel:
    """One sweep as two curves over equally spaced points: speed in blue, memory in red."""
    WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 120, 50, 40, 70

    def __init__(self, number):
        self.x = self.LEFT + number % 2 * (self.WIDTH + 2 * self.GAP)
        self.y = self.TOP + number // 2 * (self.HEIGHT + 2 * self.TOP)

    def at(self, i, count):
        return self.x + self.WIDTH * (i + 0.5) / count

    def curve(self, values, color, unit, side):
        top = 1.1 * max(values)
        points = [(self.at(i, len(values)), self.y + self.HEIGHT * (1 - v / top)) for i, v in enumerate(values)]
        edge, anchor = (self.x - 6, "end") if side == "left" else (self.x + self.WIDTH + 6, "start")
        return [f'<polyline fill="none" stroke="{color}" stroke-width="2" points="'
                + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>',
                *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points),
                f'<text x="{edge}" y="{self.y + 8}" text-anchor="{anchor}" fill="{color}">{top:.3g} {unit}</text>',
                f'<text x="{edge}" y="{self.y + self.HEIGHT}" text-anchor="{anchor}" fill="{color}">0</text>']

    def draw(self, sweep):
        count = len(sweep.points)
        bottom = self.y + self.HEIGHT
        return [f'<text x="{self.x}" y="{self.y - 12}" font-weight="bold">{sweep.title}</text>',
                f'<rect x="{self.x}" y="{self.y}" width="{self.WIDTH}" height="{self.HEIGHT}" fill="none" stroke="#999"/>',
                *(f'<text x="{self.at(i, count):.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
                  for i, (label, _) in enumerate(sweep.points)),
                f'<text x="{self.x + self.WIDTH / 2}" y="{bottom + 28}" text-anchor="middle">{sweep.axis}</text>',
                *self.curve([run.tokens_per_second for _, run in sweep.points], "#1f5fbf", "t/s", "left"),
                *self.curve([run.gigabytes for _, run in sweep.points], "#bf3f1f", "GB", "right")]


def svg(all_sweeps):
    parts = [line for number, sweep in enumerate(all_sweeps) for line in Panel(number).draw(sweep)]
    rows = (len(all_sweeps) + 1) // 2
    height = rows * (Panel.HEIGHT + 2 * Panel.TOP) + Panel.TOP
    width = 2 * (Panel.WIDTH + 2 * Panel.GAP)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorica", type=pathlib.Path, required=True, help="the release binary")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="Hugging Face directory or GGUF file")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parent.parent / "configs" / "data" / "train.jsonl")
    parser.add_argument("--svg", type=pathlib.Path, required=True, help="the drawing to write")
    parser.add_argument("--steps", type=int, default=4, help="of each run, the first not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    all_sweeps = sweeps()
    with tempfile.TemporaryDirectory() as folder:
        for sweep in all_sweeps:
            targets = WIDE if sweep.axis == "rank" else ""
            for label, run in sweep.points:
                measure(run, targets, options, pathlib.Path(folder))
                print(f"{sweep.title}, {label}: {run.tokens_per_second:.0f} tokens/s, {run.gigabytes:.2f} GB",
                      file=sys.stderr, flush=True)
    options.svg.write_text(svg(all_sweeps))
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads; bf16, 4 rows of 512 tokens, rank 8 on "
          "q and v, where nothing else is said\n")
    print(table(all_sweeps))


if __name__ == "__main__":
    main()
