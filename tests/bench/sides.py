"""How compare_peft.py runs lorica and PEFT on the same rows from the same adapter."""

import json
import os
import pathlib
import subprocess
import sys
import time

from rows import write_full_rows

HERE = pathlib.Path(__file__).parent
LEARNING_RATE = 1e-3
MPIRUN = ["mpirun", "--bind-to", "none", "-n"]
TORCH_DTYPE = {"BF16": "bfloat16", "F32": "float32"}


class Sides:
    """Runs either side in processes of their own, inside a temporary folder."""

    def __init__(self, options, folder, max_steps):
        self.options = options
        self.folder = folder
        self.max_steps = max_steps
        self.runs = 0

    def base(self, dtype):
        return self.options.base if dtype == "BF16" else self.options.base_f32

    def peft(self, command, dtype, *arguments):
        """Returns what peft_side.py printed."""
        output = subprocess.run(
            [sys.executable, "-W", "ignore", HERE / "peft_side.py", command, "--base", self.base(dtype),
             "--threads", str(self.options.threads), *map(str, arguments)],
            check=True, stdout=subprocess.PIPE, stderr=self.log(), text=True).stdout
        return json.loads(output.splitlines()[-1])

    def log(self):
        return open(self.folder / "stderr.txt", "a")

    def rows(self, work):
        """Returns a JSONL file whose records fill one row each, or the data itself."""
        if work.completions:
            return self.options.data
        path = self.folder / f"{work.name}.jsonl"
        if not path.exists():
            write_full_rows(self.options.data, work.length, self.max_steps * work.micro_batch, path)
        return path

    def adapter(self, work):
        path = self.folder / f"adapter_{work.rank}_{work.targets}"
        if not path.exists():
            self.peft("make_adapter", "F32", "--rank", work.rank, "--targets", work.targets, "--out", path)
        return path

    def train_peft(self, work, variant, steps):
        return self.peft("train", work.dtype, "--dtype", TORCH_DTYPE[work.dtype], "--data", self.rows(work),
                         "--adapter", self.adapter(work), "--length", work.length, "--micro_batch", work.micro_batch,
                         "--steps", steps, "--learning_rate", LEARNING_RATE, "--variant", variant)

    def train_lorica(self, work, fields, ranks, steps, base=None):
        """Returns steps and peak as PEFT's side does, the seconds to the first step, and proportional set sizes."""
        self.runs += 1
        directory = self.folder / f"run_{self.runs}"
        config = self.folder / f"run_{self.runs}.textproto"
        config.write_text(f"""\
model {{ path: "{base or self.base(work.dtype)}" dtype: {work.dtype} }}
adapter {{ init_from: "{self.adapter(work)}" }}
data {{ train: "{self.rows(work)}" sequence_length: {work.length} pack: false shuffle: false }}
train {{ steps: {steps} global_batch: {work.micro_batch} micro_batch: {work.micro_batch} learning_rate: {LEARNING_RATE}
        warmup_steps: 0 schedule: CONSTANT weight_decay: 0 max_grad_norm: 0 }}
checkpoint {{ directory: "{directory}" every_steps: 0 }}
threads: {self.options.threads // ranks}
""")
        command = [*(MPIRUN + [str(ranks)] if ranks > 1 else []), self.options.lorica, "train", "--config", config,
                   *(part for field in fields for part in ("--set", field))]
        started = time.time()
        environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        process = subprocess.Popen(command, stdout=self.log(), stderr=subprocess.STDOUT, env=environment)
        first_step, set_bytes = self.watch(process, directory / "metrics.jsonl", work.name == "ranks")
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{(self.folder / 'stderr.txt').read_text()[-2000:]}")
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "step_seconds" in line]
        return {"step_seconds": [line["step_seconds"] for line in steps], "loss": [line["loss"] for line in steps],
                "peak_rss_bytes": max(line["peak_rss_bytes"] for line in steps),
                "start_seconds": first_step - started - steps[0]["step_seconds"], "set_bytes": set_bytes}

    def generate_peft(self, prompt, tokens):
        """Returns tokens/s, the first token left out."""
        run = self.peft("generate", "BF16", "--dtype", "bfloat16", "--prompt", prompt, "--max_tokens", tokens)
        return run["tokens"] / run["seconds"]

    def generate_lorica(self, prompt, tokens):
        """Returns tokens/s, start and first token left out."""
        def wall(length):
            started = time.perf_counter()
            subprocess.run([self.options.lorica, "generate", "--model", self.options.base, "--prompt", prompt,
                            "--max_tokens", str(length)], check=True, stdout=subprocess.DEVNULL, stderr=self.log())
            return time.perf_counter() - started

        return (tokens - 1) / (wall(tokens) - wall(1))

    def watch(self, process, metrics, set_sizes):
        """Returns when the first step was reported and the largest sum of proportional set sizes seen.

        Asking for set sizes halts the process while its pages are counted, so it is done where they are wanted.
        """
        first_step, set_bytes, looked = None, 0, 0.0
        while process.poll() is None:
            if first_step is None:
                if metrics.exists() and metrics.stat().st_size > 0:
                    first_step = time.time()
                time.sleep(0.01)
            else:
                time.sleep(0.2)
            if set_sizes and time.time() - looked > 1:
                looked = time.time()
                set_bytes = max(set_bytes, proportional_set_bytes(self.options.lorica.name))
        return first_step or time.time(), set_bytes


def proportional_set_bytes(name):
    """Returns the summed proportional set sizes of all processes of that name."""
    total = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == name:
                for line in (process / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total
