"""Reads what `lorica export` wrote with the packages that own the formats.

    python3 tests/golden/check_containers.py PEFT_DIR LORA.gguf MERGED_DIR

Every tensor of the adapter must be in LORA.gguf, whose factors, rows of q and k
put back in order, must make the same change; MERGED_DIR must open and hold
finite numbers of one type. Exits 0 where all is well, 1 where not, 77 where a
package it needs is absent.
"""

import json
import pathlib
import sys

SKIPPED = 77

try:
    import gguf
    import numpy
    from safetensors import safe_open
    from safetensors.numpy import load_file
except ImportError as error:
    print(f"skipped: {error} (needs numpy, safetensors and gguf)")
    sys.exit(SKIPPED)

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_in_gguf(key):
    """blk.0.attn_q.weight of base_model.model.model.layers.0.self_attn.q_proj."""
    layer, part = key.removeprefix("base_model.model.model.layers.").split(".", 1)
    return f"blk.{layer}.{PARTS[part]}.weight"


def check_lora(peft, path, head_dim):
    config = json.loads((peft / "adapter_config.json").read_text())
    stored = load_file(peft / "adapter_model.safetensors")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora", fields
    tensors = {tensor.name: numpy.array(tensor.data, dtype=numpy.float64) for tensor in reader.tensors}
    modules = sorted({key.rsplit(".lora_", 1)[0] for key in stored})
    assert len(tensors) == len(stored) == 2 * len(modules)
    for module in modules:
        a, b = stored[f"{module}.lora_A.weight"].astype(float), stored[f"{module}.lora_B.weight"].astype(float)
        name = name_in_gguf(module)
        lora_a, lora_b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        if module.endswith(("q_proj", "k_proj")):
            heads = len(lora_b) // head_dim
            lora_b = lora_b.reshape(heads, head_dim // 2, 2, -1).swapaxes(1, 2).reshape(lora_b.shape)
        rank = a.shape[0]
        scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
        change, theirs = scale * b @ a, fields["adapter.lora.alpha"] / rank * lora_b @ lora_a
        assert numpy.abs(change - theirs).max() <= 1e-6 * numpy.abs(change).max(), module
    return len(modules)


def check_merged(directory):
    config = json.loads((directory / "config.json").read_text())
    count = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            assert file.metadata() == {"format": "pt"}
            types = {file.get_slice(name).get_dtype() for name in file.keys()}
            assert len(types) == 1, types
            count += len(file.keys())
    return count, config["head_dim"] if "head_dim" in config else config["hidden_size"] // config["num_attention_heads"]


def main():
    peft, lora, merged = map(pathlib.Path, sys.argv[1:4])
    tensors, head_dim = check_merged(merged)
    modules = check_lora(peft, lora, head_dim)
    print(f"{modules} modules of the LoRA file and {tensors} merged tensors are as they should be")


if __name__ == "__main__":
    main()
