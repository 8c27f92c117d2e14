"""Measures lorica and PEFT side by side and prints a table of ratios.

Both sides train the same rows from the same adapter with the same AdamW, taking
turns, so a noisy machine is noisy for both; quoted are the medians over all
steps but the first of a run. Their losses must agree at every step, or the
speeds mean nothing and the exit status is 1.

    python3 tests/bench/compare_peft.py --lorica build/release/lorica \
        --base DIR_BF16 --base_f32 DIR_F32 [--gguf FILE] [--only bf16 --only f32] [--rounds 2]

Needs torch, transformers and peft; installs nothing. The whole table takes about
an hour on two cores.
"""

import argparse
import dataclasses
import datetime
import os
import pathlib
import statistics
import sys
import tempfile

from machine import processor
from sides import Sides

HERE = pathlib.Path(__file__).parent
TOLERANCE = {"BF16": 0.01, "F32": 1e-4}
GENERATE_PROMPT = "Once upon a time, in a small village by the sea, there lived"
GENERATE_TOKENS = 128


@dataclasses.dataclass
class Work:
    """Rows to train on, and who trains on them how.

    lorica: by variant, the fields to set and the number of ranks. peft: its variants.
    The first of each is the pair whose losses are compared.
    """
    name: str
    length: int = 512
    micro_batch: int = 4
    dtype: str = "BF16"
    rank: int = 8
    targets: str = "q_proj,v_proj"
    completions: bool = False
    lorica: dict = dataclasses.field(default_factory=lambda: {"lorica": ([], 1)})
    peft: tuple = ("eager",)


WORKS = [
    Work("bf16", lorica={"lorica": ([], 1), "block": (["recompute=BLOCK"], 1)},
         peft=("eager", "autocast", "compile", "checkpointing")),
    Work("f32", dtype="F32"),
    Work("all-linear", rank=16, targets="all-linear"),
    Work("2048", length=2048, micro_batch=1),
    Work("completions", micro_batch=16, completions=True),
    Work("8192", length=8192, micro_batch=1, peft=(),
         lorica={"lorica": ([], 1), "block": (["recompute=BLOCK"], 1)}),
    Work("ranks", micro_batch=2, peft=(),
         lorica={"one": ([], 1), "tensor": (["mesh.tensor=2"], 2),
                 "data": (["mesh.data=2", "train.global_batch=4"], 2)}),
]


def measure(sides, work, options):
    """Returns the runs of each variant, taken in turns."""
    runs = {variant: [] for variant in [*work.lorica, *work.peft]}
    compared = {next(iter(work.lorica)), *work.peft[:1]} if work.peft else set()
    for turn in range(options.rounds):
        for variant in runs:
            count = options.loss_steps if turn == 0 and variant in compared else options.steps
            if variant in work.lorica:
                run = sides.train_lorica(work, *work.lorica[variant], count)
            else:
                run = sides.train_peft(work, variant, count)
            runs[variant].append(run)
            print(f"{work.name} {variant}: {seconds([run]):.3f} s a step, {run['peak_rss_bytes'] / 1e9:.2f} GB",
                  file=sys.stderr, flush=True)
    return runs


def measure_start(sides, base):
    """Returns the median seconds from launch to the first step."""
    work = Work("bf16")
    return statistics.median(sides.train_lorica(work, [], 1, 1, base)["start_seconds"] for _ in range(3))


def measure_generate(sides, rounds):
    """Returns the median tokens/s of lorica and of transformers, greedy, one sequence."""
    turns = [(sides.generate_lorica(GENERATE_PROMPT, GENERATE_TOKENS),
              sides.generate_peft(GENERATE_PROMPT, GENERATE_TOKENS)) for _ in range(rounds)]
    return [statistics.median(side) for side in zip(*turns)]


def seconds(runs):
    """Returns the median step, the first of each run left out: it warms up."""
    return statistics.median(s for run in runs for s in run["step_seconds"][1:])


def gigabytes(runs, key="peak_rss_bytes"):
    return statistics.median(run[key] for run in runs) / 1e9


class Table:
    """A Markdown table of both sides and their ratio."""

    def __init__(self):
        self.lines = ["| work | lorica | PEFT | ratio | bar |", "|---|---|---|---|---|"]

    def add(self, what, ours, theirs=None, bar="", unit=""):
        cells = [f"{ours:.3g}{unit}", "", ""]
        if theirs:
            cells[1:] = f"{theirs:.3g}{unit}", f"{ours / theirs:.2f}x"
        self.lines.append(f"| {what} | {' | '.join(cells)} | {bar} |")


def add_work(table, work, runs):
    """Adds the lines of one work to the table."""
    def rate(variant, items):
        return items / seconds(runs[variant])

    tokens = work.length * work.micro_batch
    if work.name == "bf16":
        fastest = min(("autocast", "compile"), key=lambda v: seconds(runs[v]))
        leanest = min(("eager", "autocast", "compile"), key=lambda v: gigabytes(runs[v]))
        table.add("bf16, tokens/s, PEFT eager", rate("lorica", tokens), rate("eager", tokens), "2.2x")
        table.add(f"bf16, tokens/s, PEFT's fastest: {fastest}", rate("lorica", tokens), rate(fastest, tokens), "1.8x")
        table.add(f"bf16, peak memory, PEFT's leanest: {leanest}", gigabytes(runs["lorica"]),
                  gigabytes(runs[leanest]), "0.25x", " GB")
        table.add("bf16, block recompute, tokens/s, PEFT gradient checkpointing", rate("block", tokens),
                  rate("checkpointing", tokens), "1.7x")
        table.add("bf16, block recompute, peak memory, PEFT gradient checkpointing", gigabytes(runs["block"]),
                  gigabytes(runs["checkpointing"]), "0.16x", " GB")
    elif work.name == "8192":
        for variant, name in (("lorica", ""), ("block", ", block recompute")):
            table.add(f"bf16, 1 x 8192 tokens{name}, tokens/s", rate(variant, tokens))
            table.add(f"bf16, 1 x 8192 tokens{name}, peak memory", gigabytes(runs[variant]), bar="1.2 GB", unit=" GB")
    elif work.name == "ranks":
        table.add("2 tensor ranks against 1 rank of all threads, tokens/s", rate("tensor", tokens),
                  rate("one", tokens), "0.9x")
        table.add("2 data ranks against 1 rank, sum of proportional set sizes", gigabytes(runs["data"], "set_bytes"),
                  gigabytes(runs["one"], "set_bytes"), "1.6x", " GB")
    elif work.completions:
        table.add("bf16, completion-only loss, records/s, PEFT padding", rate("lorica", work.micro_batch),
                  rate("eager", work.micro_batch), "3x")
    else:
        bar = {"f32": "1.8x"}.get(work.name, "2.2x")
        table.add(f"{work.name}, tokens/s, PEFT eager", rate("lorica", tokens), rate("eager", tokens), bar)


def compare_losses(work, runs):
    """Returns a line on how far the losses of both sides differ, and whether that is little enough."""
    ours, theirs = runs[next(iter(work.lorica))][0]["loss"], runs[work.peft[0]][0]["loss"]
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    agree = difference <= TOLERANCE[work.dtype]
    return (f"{work.name}: losses of {len(ours)} steps differ by at most {difference:.1e}, "
            f"{'within' if agree else 'NOT within'} {TOLERANCE[work.dtype]:g}"), agree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorica", type=pathlib.Path, required=True, help="the release binary")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="Hugging Face directory in bf16")
    parser.add_argument("--base_f32", type=pathlib.Path, required=True, help="the same in f32")
    parser.add_argument("--gguf", type=pathlib.Path, help="the same as GGUF, to time its start")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parent.parent / "configs" / "data" / "train.jsonl")
    parser.add_argument("--only", action="append", choices=[*(work.name for work in WORKS), "start", "generate"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="of a run whose losses are not compared")
    parser.add_argument("--loss_steps", type=int, default=20,
                        help="of the runs of the first round whose losses are compared")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    only = options.only or [*(work.name for work in WORKS), "start", "generate"]
    table, losses = Table(), []
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(options, pathlib.Path(folder), max(options.steps, options.loss_steps))
        for work in WORKS:
            if work.name in only:
                runs = measure(sides, work, options)
                add_work(table, work, runs)
                if work.peft:
                    losses.append(compare_losses(work, runs))
        if "start" in only:
            table.add("first step starts after launch, safetensors", measure_start(sides, options.base),
                      bar="1 s", unit=" s")
            if options.gguf:
                table.add("first step starts after launch, GGUF", measure_start(sides, options.gguf),
                          bar="3 s", unit=" s")
        if "generate" in only:
            table.add("generate, greedy, batch 1, tokens/s", *measure_generate(sides, options.rounds), "2x")
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, medians of {options.rounds} rounds; "
          "4 x 512 tokens, rank 8 on q and v, AdamW, where nothing else is said\n")
    print("\n".join(table.lines), "\n")
    print("\n".join(line for line, _ in losses))
    sys.exit(0 if all(agree for _, agree in losses) else 1)


if __name__ == "__main__":
    main()
