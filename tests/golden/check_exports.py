"""Opens what `lorica export` writes in PEFT, transformers and llama.cpp, and compares.

    python3 tests/golden/check_exports.py --lorica BINARY --base HF_DIR --gguf FILE.gguf [--work DIR]

HF_DIR and FILE.gguf are one Llama model; the GGUF may be quantized, a copy with
the directory's weights in f32 is made of it. Adapters of random factors are
saved by PEFT under different rules (rank-stabilized, rank and alpha patterns)
and exported in every format:

  gguf    llama.cpp's logits with the LoRA file against PEFT's
  merged  weights against PEFT's merge_and_unload, logits, subtraction; from the
          GGUF: the weights against transformers' reading of it, and token ids
  peft    the same tensors after PEFT has loaded them

Exits 0 where all agree, 1 where not, 77 where a package it needs is absent.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    import gguf
    import numpy
    import torch
    from llama_cpp import Llama
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    print(f"skipped: {error} (needs torch, transformers, peft, gguf and llama-cpp-python)")
    sys.exit(SKIPPED)

TEXTS = ["Package: zlib1g\nSection: libs\n", "The capital of France is Paris, and 2024 was a leap year."]
RULES = {
    "standard": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "stabilized": {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"k_proj": 16, "layers.3.mlp.down_proj": 2},
        "alpha_pattern": {"q_proj": 3, "layers.5.self_attn.k_proj": 40},
    },
}
failures = []


def expect(what, error, bound):
    print(f"  {'ok  ' if error <= bound else 'FAIL'} {what}: {error:.2e} (at most {bound:.0e})", flush=True)
    if not error <= bound:
        failures.append(what)


def lorica(options, *arguments, show=""):
    result = subprocess.run([options.lorica, "export", *map(str, arguments)], text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"lorica export {' '.join(map(str, arguments))}: {result.stderr}")
    for line in result.stdout.splitlines():
        if show and show in line:
            print(f"       {line}")


def load(directory, **how):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **how).eval()


def relative(x, y):
    return float((x.double() - y.double()).abs().max() / y.double().abs().max())


@torch.no_grad()
def logits_of(model, ids):
    return [model(input_ids=torch.tensor([i])).logits[0] for i in ids]


def llama_logits(model, lora, ids):
    llama = Llama(str(model), lora_path=str(lora) if lora else None, logits_all=True, n_ctx=256, verbose=False,
                  type_k=0, type_v=0)  # F32 caches.
    results = []
    for tokens in ids:
        llama.reset()
        llama.eval(tokens)
        results.append(torch.tensor(numpy.array(llama.scores[: len(tokens)])))
    return results


def worst(xs, ys):
    return max(relative(x, y) for x, y in zip(xs, ys))


def save_random_adapter(options, rules, out):
    torch.manual_seed(1)
    model = get_peft_model(load(options.base), LoraConfig(task_type="CAUSAL_LM", **rules))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(out)


def copy_field(writer, field):
    kind = field.types[0]
    sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
        return
    writer.add_key_value(field.name, field.contents(), kind, sub)


def make_f32_gguf(options, out):
    """FILE.gguf with the directory's weights, so that llama.cpp computes without quantization."""
    reader = gguf.GGUFReader(options.gguf)
    heads = reader.fields["llama.attention.head_count"].contents()
    kv_heads = reader.fields["llama.attention.head_count_kv"].contents()
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        copy_field(writer, field)
    weights = load_file(options.base / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1000)
    for name, weight in weights.items():
        values = weight.float().numpy()
        for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if part in name:
                values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_gguf(options, work, adapter, ids, with_adapter):
    lorica(options, "--checkpoint", adapter, "--model", options.base, "--format", "gguf", "--out", work / "lora.gguf")
    got = llama_logits(work / "base.gguf", work / "lora.gguf", ids)
    expect("llama.cpp's logits with the LoRA file against PEFT's", worst(got, with_adapter), 2e-3)


def check_merged(options, work, adapter, ids, with_adapter):
    merged = PeftModel.from_pretrained(load(options.base), adapter).merge_and_unload().state_dict()
    rounding = {"f32": 1e-6, "bf16": 2**-8, "f16": 2**-11}
    for dtype, bound in rounding.items():
        out = work / f"merged_{dtype}"
        lorica(options, "--checkpoint", adapter, "--model", options.base, "--format", "merged", "--dtype", dtype,
               "--out", out, show="logits of")
        stored = load_file(out / "model.safetensors")
        expect(f"{dtype} weights against PEFT's merge", max(relative(stored[n].float(), merged[n]) for n in stored), bound)
        model = load(out)
        expect(f"{dtype} logits in transformers against PEFT's", worst(logits_of(model, ids), with_adapter), 40 * bound)
    back = work / "back"
    lorica(options, "--checkpoint", adapter, "--model", work / "merged_f32", "--original", options.base, "--subtract",
           "--format", "merged", "--out", back, show="from the original")
    base = load_file(options.base / "model.safetensors")
    stored = load_file(back / "model.safetensors")
    expect("subtracted weights against the base's", max(relative(stored[n], base[n].float()) for n in stored), 1e-6)


def check_peft(options, work, adapter):
    lorica(options, "--checkpoint", adapter, "--format", "peft", "--out", work / "peft")
    ours = get_peft_model_state_dict(PeftModel.from_pretrained(load(options.base), work / "peft"))
    theirs = get_peft_model_state_dict(PeftModel.from_pretrained(load(options.base), adapter))
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    expect("tensors that PEFT reads differently", 0.0 if same else 1.0, 0)


def check_merged_gguf(options, work, adapter):
    out = work / "from_gguf"
    lorica(options, "--checkpoint", adapter, "--model", options.gguf, "--format", "merged", "--out", out, show="logits of")
    theirs = AutoModelForCausalLM.from_pretrained(options.gguf.parent, gguf_file=options.gguf.name, dtype=torch.float32)
    merged = PeftModel.from_pretrained(theirs, adapter).merge_and_unload().state_dict()
    stored = load_file(out / "model.safetensors")
    expect("weights of the GGUF against PEFT's merge", max(relative(stored[n], merged[n]) for n in stored), 1e-6)
    load(out)
    ours, base = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(options.base)
    # Without white space before numbers, which transformers' reading of a GGUF joins: see README.md.
    texts = TEXTS + ["a\n\n  \u00e9\u4e16", "<|im_start|>user\nHi<|im_end|>"]
    differing = [t for t in texts if ours(t).input_ids != base(t).input_ids]
    expect(f"texts that its tokenizer reads differently {differing}", float(len(differing)), 0)
    chat = [{"role": "user", "content": "Hi"}]
    same = ours.apply_chat_template(chat, tokenize=False) == base.apply_chat_template(chat, tokenize=False)
    expect("chat templates that differ", 0.0 if same and ours.eos_token == base.eos_token else 1.0, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorica", required=True)
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, help="a directory to leave the files in")
    options = parser.parse_args()
    root = options.work or pathlib.Path(tempfile.mkdtemp())

    tokenizer = AutoTokenizer.from_pretrained(options.base)
    ids = [tokenizer(text).input_ids for text in TEXTS]
    root.mkdir(parents=True, exist_ok=True)
    make_f32_gguf(options, root / "base.gguf")
    base = logits_of(load(options.base), ids)
    print("base", flush=True)
    expect("llama.cpp's logits against transformers'", worst(llama_logits(root / "base.gguf", None, ids), base), 2e-3)
    for name, rules in RULES.items():
        print(name, flush=True)
        work = root / name
        work.mkdir()
        (work / "base.gguf").symlink_to((root / "base.gguf").resolve())
        adapter = work / "adapter"
        save_random_adapter(options, rules, adapter)
        with_adapter = logits_of(PeftModel.from_pretrained(load(options.base), adapter), ids)
        print(f"       the adapter moves logits by {worst(with_adapter, base):.2f}")
        check_gguf(options, work, adapter, ids, with_adapter)
        check_merged(options, work, adapter, ids, with_adapter)
        if name == "stabilized":
            check_peft(options, work, adapter)
            check_merged_gguf(options, work, adapter)
        if options.work is None:
            shutil.rmtree(work)
    if options.work is None:
        shutil.rmtree(root)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
