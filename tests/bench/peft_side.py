"""The PEFT side of compare_peft.py: makes adapters, trains and generates in a process of its own.

Prints one JSON line. Needs torch, transformers and peft.
"""

import argparse
import itertools
import json
import pathlib
import resource
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def make_adapter(options):
    """Saves a fresh adapter, for both sides to start from."""
    torch.manual_seed(0)
    targets = options.targets if options.targets == "all-linear" else options.targets.split(",")
    config = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(options.base), config).save_pretrained(options.out)
    return {}


def encode(tokenizer, record, length):
    """Returns ids and labels of a record, cut to a row."""
    end = [tokenizer.eos_token_id]
    if "text" in record:
        ids = (tokenizer(record["text"]).input_ids + end)[:length]
        return ids, ids
    prompt = tokenizer(record["prompt"]).input_ids
    completion = tokenizer(record["completion"], add_special_tokens=False).input_ids + end
    return (prompt + completion)[:length], ([-100] * len(prompt) + completion)[:length]


def batches(tokenizer, options):
    """Yields padded batches of the file's rows in order, starting over at its end."""
    lines = itertools.cycle(pathlib.Path(options.data).read_text().splitlines())
    while True:
        rows = [encode(tokenizer, json.loads(next(lines)), options.length) for _ in range(options.micro_batch)]
        width = max(len(ids) for ids, _ in rows)
        batch = {"input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows]),
                 "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])}
        if any(len(ids) < width for ids, _ in rows):  # A needless mask would slow full rows down.
            batch["attention_mask"] = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
        yield batch


def train(options):
    """Trains as PEFT's users do; returns seconds and loss of each step and the peak memory."""
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype))
    model.config.use_cache = False
    model = PeftModel.from_pretrained(model, options.adapter, is_trainable=True)
    if options.variant == "checkpointing":
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=0.0)
    step = torch.compile(model) if options.variant == "compile" else model
    seconds, losses = [], []
    for batch in itertools.islice(batches(tokenizer, options), options.steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.variant == "autocast"):
            loss = step(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"step_seconds": seconds, "loss": losses, "peak_rss_bytes": peak}


@torch.inference_mode()
def generate(options):
    """Returns the greedy continuation and the seconds that its tokens took but for the first."""
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype)).eval()
    prompt = tokenizer(options.prompt, return_tensors="pt")

    def timed(length):
        start = time.perf_counter()
        ids = model.generate(**prompt, do_sample=False, max_new_tokens=length)
        return time.perf_counter() - start, ids[0, prompt.input_ids.shape[1]:]

    timed(2)
    first, _ = timed(1)
    whole, ids = timed(options.max_tokens)
    return {"seconds": whole - first, "tokens": len(ids) - 1, "text": tokenizer.decode(ids)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for run in (make_adapter, train, generate):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("--base", required=True, help="Hugging Face directory")
        command.add_argument("--threads", type=int, required=True)
        if run is make_adapter:
            command.add_argument("--rank", type=int, required=True)
            command.add_argument("--targets", required=True, help="names with commas between, or all-linear")
            command.add_argument("--out", required=True)
        else:
            command.add_argument("--dtype", required=True, choices=["float32", "bfloat16"])
        if run is train:
            command.add_argument("--data", required=True, help="JSONL of text, or prompt and completion")
            command.add_argument("--adapter", required=True, help="PEFT directory to start from")
            command.add_argument("--length", type=int, required=True)
            command.add_argument("--micro_batch", type=int, required=True)
            command.add_argument("--steps", type=int, required=True)
            command.add_argument("--learning_rate", type=float, required=True)
            command.add_argument("--variant", default="eager",
                                 choices=["eager", "autocast", "compile", "checkpointing"])
        if run is generate:
            command.add_argument("--prompt", required=True)
            command.add_argument("--max_tokens", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(options.run(options)))


if __name__ == "__main__":
    main()
