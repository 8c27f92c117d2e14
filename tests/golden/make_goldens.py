"""Writes the tiny Llama, Qwen 2 and GPT-2 models of this folder and what they must compute.

transformers and PEFT hold the models; every expected number is computed in
double precision and rounded to f32 once, so it carries no rounding noise of its
own. The same numbers are computed in f32 as transformers ships it, and must
agree, before anything is written as expected.

    python3 tests/golden/make_goldens.py [FOLDER...]      (torch, transformers, peft)
"""

import contextlib
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

HERE = pathlib.Path(__file__).parent
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "qv": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all": {"r": 3, "lora_alpha": 7, "target_modules": LINEARS},
}
# Of a GPT-2, whose weights are [in, out].
GPT2_ADAPTERS = {
    "qv": {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True},
    "all": {"r": 3, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
}
TRAIN = {"steps": 20, "micro_batches_per_step": 2, "learning_rate": 1e-2, "betas": [0.9, 0.999],
         "epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0}
NO_TARGET = -100

# `style` is the config.json to write: v4 keeps rope_theta and rope_scaling at
# the top level, v5 puts them into rope_parameters; hub_gpt2 names the weights as
# the hub's gpt2 does. `family`: Llama unless said.
MODELS = {
    "heads_5_5_untied": {
        "style": "v4", "shards": 1,
        "config": {"vocab_size": 97, "hidden_size": 35, "intermediate_size": 37, "num_hidden_layers": 2,
                   "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 6,
                   "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "max_position_embeddings": 64,
                   "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}},
    "heads_9_3_tied_sharded": {
        "style": "v5", "shards": 2,
        "config": {"vocab_size": 131, "hidden_size": 36, "intermediate_size": 53, "num_hidden_layers": 3,
                   "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 4,
                   "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "max_position_embeddings": 64,
                   "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}},
    "heads_4_2_rope_llama3": {
        "style": "v4", "shards": 1,
        "config": {"vocab_size": 211, "hidden_size": 40, "intermediate_size": 67, "num_hidden_layers": 2,
                   "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
                   "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "max_position_embeddings": 512,
                   "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
                                       "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original_max_position_embeddings": 64}}},
    "heads_6_2_biased_qwen2": {
        "style": "v4", "shards": 1, "family": (Qwen2Config, Qwen2ForCausalLM),
        "config": {"vocab_size": 113, "hidden_size": 36, "intermediate_size": 59, "num_hidden_layers": 2,
                   "num_attention_heads": 6, "num_key_value_heads": 2,
                   "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "max_position_embeddings": 64,
                   "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2,
                   "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}},
    "heads_7_gpt2": {
        "style": "hub_gpt2", "shards": 1, "family": (GPT2Config, GPT2LMHeadModel), "adapters": GPT2_ADAPTERS,
        "config": {"vocab_size": 103, "n_embd": 28, "n_inner": 51, "n_layer": 2, "n_head": 7, "n_positions": 24,
                   "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}},
}

ROPES = [
    {"rope_type": "default", "rope_theta": 100000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4096},
    {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 8.0, "original_max_position_embeddings": 2048,
     "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.25, "truncate": False},
]


@contextlib.contextmanager
def double_precision():
    """Lets Llama's norms and rotary angles compute in double, not f32.

    Everything else follows the parameters' type once a model is .double().
    """
    def norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    @torch.no_grad()
    def rotary(self, x, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq.double()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    classes = {modeling_llama.LlamaRMSNorm: norm, modeling_llama.LlamaRotaryEmbedding: rotary,
               modeling_qwen2.Qwen2RMSNorm: norm, modeling_qwen2.Qwen2RotaryEmbedding: rotary}
    kept = {changed: changed.forward for changed in classes}
    for changed, forward in classes.items():
        changed.forward = forward
    yield
    for changed, forward in kept.items():
        changed.forward = forward


def write_model(folder, spec):
    """Writes a Hugging Face directory with random weights, norms and biases included."""
    make_config, make = spec.get("family", (LlamaConfig, LlamaForCausalLM))
    config = make_config(bos_token_id=0, eos_token_id=1, pad_token_id=None, attn_implementation="sdpa",
                         **spec["config"])
    model = make(config)
    for name, value in model.named_parameters():
        inputs = value.shape[0 if spec["style"] == "hub_gpt2" else -1]
        std = 0.5 if "embed" in name or ".wte" in name or ".wpe" in name else inputs ** -0.5
        norm = "norm" in name or ".ln_" in name and name.endswith(".weight")
        value.data = 1 + 0.2 * torch.randn_like(value) if norm else std * torch.randn_like(value)
    # The tie was cut by the assignments above.
    model.tie_weights()
    total = sum(value.numel() * 4 for value in model.parameters())
    model.save_pretrained(folder, max_shard_size=total // spec["shards"] + 4096)
    (folder / "generation_config.json").unlink()
    if spec["style"] == "v4":
        write_v4_config(folder / "config.json")
    if spec["style"] == "hub_gpt2":
        write_hub_weights(folder / "model.safetensors", spec["config"])
    assert len(list(folder.glob("*.safetensors"))) == spec["shards"], folder


def write_v4_config(path):
    """Rewrites config.json as transformers 4 did, with what it may leave out left out."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.40.0"
    if config["num_key_value_heads"] == config["num_attention_heads"]:
        del config["num_key_value_heads"]
    if config.get("head_dim", 0) * config["num_attention_heads"] == config["hidden_size"]:
        del config["head_dim"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_hub_weights(path, config):
    """Names the weights as the hub's gpt2 does: without a prefix, with the buffers of old releases."""
    weights = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    length = config["n_positions"]
    for layer in range(config["n_layer"]):
        weights[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(length, length))[None, None]
    save_file(weights, path, metadata={"format": "pt"})


def write_adapter(folder, base, options):
    """Writes a PEFT directory: A as PEFT draws it, B random, so no gradient is zero."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base),
                           LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data = 0.1 * torch.randn_like(value)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "model"
    config["target_modules"] = options["target_modules"]  # A set; in a fixed order here.
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


class Batch:
    """Rows of one or more records, gathered into micro-batches, as flat lists."""

    def __init__(self):
        self.records = []  # (tokens, targets) of each record
        self.row_records = []
        self.micro_batch_rows = []

    def add_row(self, *records):
        """Adds a row of (tokens, how many of them come before the first target)."""
        for tokens, untrained in records:
            targets = [NO_TARGET if t < untrained else tokens[t] for t in range(1, len(tokens))]
            self.records.append((tokens, targets + [NO_TARGET]))
        self.row_records.append(len(records))

    def end_micro_batch(self):
        self.micro_batch_rows.append(len(self.row_records) - sum(self.micro_batch_rows))

    def micro_batches(self):
        """Returns the records of each micro-batch."""
        counts, records = iter(self.row_records), iter(self.records)
        return [[next(records) for _ in range(sum(next(counts) for _ in range(rows)))]
                for rows in self.micro_batch_rows]

    def save(self, path):
        lists = {
            "tokens": [token for tokens, _ in self.records for token in tokens],
            "targets": [target for _, targets in self.records for target in targets],
            "record_lengths": [len(tokens) for tokens, _ in self.records],
            "row_records": self.row_records,
            "micro_batch_rows": self.micro_batch_rows,
        }
        save_file({name: torch.tensor(values, dtype=torch.int32) for name, values in lists.items()}, path)


def record(vocab, length, untrained=1):
    """Returns a record that counts up by a random stride, so there is something to learn."""
    first, stride = torch.randint(vocab, (1,)).item(), torch.randint(1, 4, (1,)).item()
    return [(first + i * stride) % vocab for i in range(length)], untrained


def model_batch(vocab):
    """Rows of several lengths: whole, prompt masked, packed, one target only, no target."""
    batch = Batch()
    batch.add_row(record(vocab, 13))
    batch.add_row(record(vocab, 7, untrained=4))
    batch.add_row(record(vocab, 9), record(vocab, 5, untrained=2), record(vocab, 8, untrained=3))
    batch.add_row(record(vocab, 17, untrained=16))
    batch.add_row(record(vocab, 3, untrained=3))
    batch.end_micro_batch()
    return batch


def curve_batch(vocab):
    """Eight micro-batches of unequal rows and unequal numbers of targets."""
    batch = Batch()
    for i in range(8):
        batch.add_row(record(vocab, 10 + i, untrained=1 + i % 3))
        batch.add_row(record(vocab, 6), record(vocab, 4 + i, untrained=2))
        batch.end_micro_batch()
    return batch


def run(model, records):
    """Returns logits [tokens, vocab] and the loss of each token, 0 where none is asked for.

    Each record runs by itself, so no packed row can leak into another record.
    """
    logits = torch.cat([model(input_ids=torch.tensor([tokens])).logits[0] for tokens, _ in records])
    targets = torch.tensor([target for _, targets in records for target in targets])
    losses = torch.nn.functional.cross_entropy(logits, targets, ignore_index=NO_TARGET, reduction="none")
    return logits, losses


def count_targets(records):
    return sum(target != NO_TARGET for _, targets in records for target in targets)


def load(folder, dtype, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, folder / f"adapter_{adapter}", is_trainable=True)
    return model.to(dtype)


def forward_results(folder, dtype, batch, adapters):
    """Returns logits, losses and gradients of one batch, for the base and each adapter."""
    results = {}
    records = batch.micro_batches()[0]
    with torch.no_grad():
        results["base.logits"], results["base.losses"] = run(load(folder, dtype), records)
    for adapter in adapters:
        model = load(folder, dtype, adapter)
        logits, losses = run(model, records)
        loss = losses.sum() / count_targets(records)
        loss.backward()
        results |= {f"{adapter}.logits": logits.detach(), f"{adapter}.losses": losses.detach(),
                    f"{adapter}.loss": loss.detach()}
        for name, value in model.named_parameters():
            if value.requires_grad:
                assert value.grad.abs().max() > 0, name
                results[f"{adapter}.grad." + name.replace(".default", "")] = value.grad
    return results


def curve(folder, dtype, adapter, batch):
    """Returns loss and gradient norm (before clipping) of each training step."""
    model = load(folder, dtype, adapter)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=TRAIN["learning_rate"], betas=tuple(TRAIN["betas"]),
                                  eps=TRAIN["epsilon"], weight_decay=TRAIN["weight_decay"])
    micro_batches = batch.micro_batches()
    per_step = TRAIN["micro_batches_per_step"]
    losses, norms = [], []
    for step in range(TRAIN["steps"]):
        records = [r for i in range(per_step) for r in micro_batches[(step * per_step + i) % len(micro_batches)]]
        loss = run(model, records)[1].sum() / count_targets(records)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, TRAIN["max_grad_norm"]).item())
        optimizer.step()
        losses.append(loss.item())
    return {"loss": losses, "grad_norm": norms}


@torch.no_grad()
def greedy(folder, prompt, length):
    """Returns the greedy continuation, and the smallest lead of a chosen token over the next best."""
    model, tokens, lead = load(folder, torch.float64), list(prompt), []
    for _ in range(length):
        best = model(input_ids=torch.tensor([tokens])).logits[0, -1].topk(2)
        lead.append((best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
    return tokens[len(prompt):], min(lead)


def largest_difference(a, b):
    """Returns the largest difference of two results, relative to the largest value."""
    return max(((a[name].double() - b[name].double()).abs().max() / b[name].abs().max()).item() for name in b)


def make_model(name, spec):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    write_model(folder / "model", spec)
    adapters = spec.get("adapters", ADAPTERS)
    for adapter, options in adapters.items():
        write_adapter(folder / f"adapter_{adapter}", folder / "model", options)
    vocab = spec["config"]["vocab_size"]
    batch, steps = model_batch(vocab), curve_batch(vocab)
    batch.save(folder / "batch.safetensors")
    steps.save(folder / "curve_batch.safetensors")
    with double_precision():
        expected = forward_results(folder, torch.float64, batch, adapters)
        curves = {adapter: curve(folder, torch.float64, adapter, steps) for adapter in adapters}
        prompt = record(vocab, 6)[0]
        continuation, lead = greedy(folder, prompt, 12)
    single = forward_results(folder, torch.float32, batch, adapters)
    difference = largest_difference(single, expected)
    curve_difference = max(abs(a - b) for adapter in adapters for a, b in zip(
        curve(folder, torch.float32, adapter, steps)["loss"], curves[adapter]["loss"]))
    assert difference < 2e-5 and curve_difference < 1e-4 and lead > 1e-3, (name, difference, curve_difference, lead)
    save_file({key: value.float().contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(
        {"train": TRAIN, "curves": curves, "greedy": {"prompt": prompt, "continuation": continuation}},
        indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    print(f"{name}: {size} bytes, f32 differs by {difference:.1e}, its curves by {curve_difference:.1e}")


def make_ropes():
    """Writes what transformers makes of each kind of rope_parameters."""
    ropes = []
    for parameters in ROPES:
        config = LlamaConfig(hidden_size=512, num_attention_heads=8, head_dim=64, max_position_embeddings=16384,
                             rope_parameters=dict(parameters))
        make = ROPE_INIT_FUNCTIONS.get(parameters["rope_type"],
                                       modeling_llama.LlamaRotaryEmbedding.compute_default_rope_parameters)
        inv_freq, scaling = make(config, device="cpu")
        ropes.append({"head_dim": 64, "max_position_embeddings": 16384, "rope_parameters": parameters,
                      "inv_freq": inv_freq.tolist(), "attention_scaling": scaling})
    (HERE / "rope.json").write_text(json.dumps(ropes, indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*MODELS, "rope"]
    for seed, (name, spec) in enumerate(MODELS.items()):
        if name in wanted:
            torch.manual_seed(seed)
            make_model(name, spec)
    if "rope" in wanted:
        make_ropes()


if __name__ == "__main__":
    main()
