"""Compares `lorica eval --dtype f32 --out` with transformers and PEFT on the same records.

    python3 tests/golden/check_peft.py --base DIR_OR_GGUF --adapter DIR --data FILE.jsonl --eval OUT.jsonl

Exits 0 where every loss_sum agrees within 1e-4 relative and the adapter opened
whole, 1 where not, 77 where a package it needs is absent.
"""

import argparse
import json
import pathlib
import sys

TOLERANCE = 1e-4
SKIPPED = 77

try:
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    print(f"skipped: {error} (needs torch, transformers, peft and, for a GGUF, gguf)")
    sys.exit(SKIPPED)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def load(base, adapter):
    """Returns the tokenizer and the model in f32, with the adapter if one is given."""
    where = (base.parent, {"gguf_file": base.name}) if base.is_file() else (base, {})
    tokenizer = AutoTokenizer.from_pretrained(where[0], **where[1])
    model = AutoModelForCausalLM.from_pretrained(where[0], dtype=torch.float32, **where[1])
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
        check_opened(model, adapter)
    return tokenizer, model.eval()


def check_opened(model, adapter):
    """Fails unless the model holds exactly the file's tensors: PEFT itself only warns."""
    held, stored = get_peft_model_state_dict(model), load_file(adapter / "adapter_model.safetensors")
    if held.keys() != stored.keys():
        sys.exit(f"{adapter}: tensors that PEFT and the file do not share: {sorted(held.keys() ^ stored.keys())}")
    differing = [name for name in stored if not torch.equal(held[name], stored[name].to(held[name].dtype))]
    if differing:
        sys.exit(f"{adapter}: PEFT read other values of {differing}")


def rendered_length(tokenizer, messages, generate):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def tokens_and_targets(tokenizer, record):
    """Returns a record's ids and for each whether it is a target, by Lorica's rules."""
    eos = [tokenizer.eos_token_id]
    if "text" in record:
        ids = tokenizer(record["text"]).input_ids + eos
        return ids, [False] + [True] * (len(ids) - 1)
    if "prompt" in record:
        prompt = tokenizer(record["prompt"]).input_ids
        completion = tokenizer(record["completion"], add_special_tokens=False).input_ids + eos
        return prompt + completion, [False] * len(prompt) + [True] * len(completion)
    messages = record["messages"]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    targets = [False] * len(ids)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            begin = rendered_length(tokenizer, messages[:i], True)
            end = begin + ids[begin:].index(tokenizer.eos_token_id) + 1
            targets[begin:end] = [True] * (end - begin)
    return ids, targets


@torch.no_grad()
def loss_of(model, ids, targets):
    """Returns the number of targets and their summed cross-entropy."""
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    logits = model(input_ids=ids[None]).logits[0, :-1][targets[1:]]
    loss = torch.nn.functional.cross_entropy(logits.double(), ids[1:][targets[1:]], reduction="sum")
    return len(logits), loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=pathlib.Path, required=True, help="Hugging Face directory or GGUF file")
    parser.add_argument("--adapter", type=pathlib.Path, help="PEFT directory; without it the base alone")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="JSON lines that lorica eval read")
    parser.add_argument("--eval", type=pathlib.Path, required=True, help="JSON lines that lorica eval wrote")
    options = parser.parse_args()

    records, results = read_lines(options.data), read_lines(options.eval)
    if len(records) != len(results):
        sys.exit(f"{options.eval}: {len(results)} lines for the {len(records)} records of {options.data}")
    tokenizer, model = load(options.base, options.adapter)
    worst = total = 0.0
    for index, (record, result) in enumerate(zip(records, results)):
        count, loss = loss_of(model, *tokens_and_targets(tokenizer, record))
        if result["index"] != index or result["tokens"] != count:
            sys.exit(f"record {index}: {count} target tokens expected, lorica wrote {json.dumps(result)}")
        difference = abs(result["loss_sum"] - loss) / max(abs(loss), 1e-6)
        if not difference <= TOLERANCE:
            sys.exit(f"record {index}: loss_sum {result['loss_sum']} differs from PEFT's {loss:.6f}"
                     f" by {difference:.1e}, more than {TOLERANCE:.0e}")
        worst, total = max(worst, difference), total + loss
    print(f"{len(records)} records agree with PEFT: loss_sum {total:.3f} in all, differs by at most {worst:.1e} relative")


if __name__ == "__main__":
    main()
