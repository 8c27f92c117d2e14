"""Writes tiny_text/: a whole model with a tokenizer, small enough for every test of the program.

Two layers, pretrained for a minute on the prompts of configs/data, once as a
Hugging Face directory in bf16 and once as a GGUF file that mixes tensor types.
The losses expected of both are transformers' in f32.

    python3 tests/golden/make_tiny_text.py      (torch, transformers, gguf)
"""

import json
import pathlib
import shutil

import gguf
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent.parent / "configs" / "data"
FOLDER = HERE / "tiny_text"
GGUF = FOLDER / "model.gguf"
NUM_LOSSES = 40
BOS, EOS = 1, 2
HEADS, KV_HEADS = 6, 3
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
                 "+ '<|im_end|>' + '\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
TYPES = [  # Of each layer's tensors; norms are F32, the embedding Q8_0.
    {"attn_q": "Q4_1", "attn_k": "Q8_0", "attn_v": "Q4_0", "attn_output": "Q4_1", "ffn_gate": "F16", "ffn_up": "BF16",
     "ffn_down": "Q4_0"},
    {"attn_q": "F16", "attn_k": "Q4_0", "attn_v": "BF16", "attn_output": "Q8_0", "ffn_gate": "Q4_1", "ffn_up": "Q8_0",
     "ffn_down": "F32"},
]


def records(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def pretrain(tokenizer):
    """Returns a model that knows what the prompts look like."""
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=96, intermediate_size=96,
                         num_hidden_layers=len(TYPES), num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                         rms_norm_eps=1e-5, tie_word_embeddings=True, max_position_embeddings=512,
                         bos_token_id=BOS, eos_token_id=EOS, initializer_range=0.1)
    model = LlamaForCausalLM(config)
    rows = [torch.tensor(tokenizer.encode(r["prompt"]).ids + [EOS]) for r in records("train.jsonl")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    steps, loss = 800, None
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = [rows[i] for i in torch.randint(len(rows), (8,)).tolist()]
        ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in chosen], batch_first=True)
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"pretrained: {model.num_parameters()} parameters, loss {loss.item():.3f}")
    return model.to(torch.bfloat16)


def write_directory(model):
    folder = FOLDER / "model"
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokenizers" / "smollm.json"),
                                        bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
                                        chat_template=CHAT_TEMPLATE)
    tokenizer.save_pretrained(folder)


def interleaved(weight, heads):
    """Returns query or key rows in the order of GGUF's llama architecture."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def tensors(model):
    """Returns (GGUF name, f32 weight, type) of each tensor."""
    for name, weight in model.state_dict().items():
        weight = weight.float()
        if name == "model.embed_tokens.weight":
            yield "token_embd.weight", weight, "Q8_0"
        elif name == "model.norm.weight":
            yield "output_norm.weight", weight, "F32"
        elif name.startswith("model.layers."):
            layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            part = NAMES[part]
            if part in ("attn_q", "attn_k"):
                weight = interleaved(weight, HEADS if part == "attn_q" else KV_HEADS)
            yield f"blk.{layer}.{part}.weight", weight, TYPES[int(layer)].get(part, "F32")


def write_gguf(model, tokenizer):
    config = model.config
    writer = gguf.GGUFWriter(str(GGUF), "llama")
    writer.add_name("Lorica tiny text")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    bpe = json.loads(tokenizer.to_str())["model"]
    special = set(tokenizer.get_added_tokens_decoder())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL
                            for i in range(config.vocab_size)])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weight, kind in tensors(model):
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def losses(model, tokenizer):
    """Returns the first validation records' losses, summed over completion and eos."""
    entries = []
    for index, r in enumerate(records("valid.jsonl")[:NUM_LOSSES]):
        prompt, completion = tokenizer.encode(r["prompt"]).ids, tokenizer.encode(r["completion"]).ids + [EOS]
        ids = torch.tensor(prompt + completion)
        logits = model(input_ids=ids[None]).logits[0, len(prompt) - 1:-1].double()
        loss = torch.nn.functional.cross_entropy(logits, ids[len(prompt):], reduction="sum")
        entries.append({"index": index, "tokens": len(completion), "loss_sum": round(loss.item(), 6)})
    return entries


def greedy(model, tokenizer):
    """Returns greedy continuations of half prompts."""
    cases = []
    for r in records("valid.jsonl")[:4]:
        prompt, leads = r["prompt"][:len(r["prompt"]) // 2], []
        ids = tokenizer.encode(prompt).ids
        start = len(ids)
        while len(ids) < start + 24 and ids[-1] != EOS:
            best = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            leads.append((best.values[0] - best.values[1]).item())
            ids.append(best.indices[0].item())
        cases.append({"prompt": prompt, "ids": ids[start:], "text": tokenizer.decode(ids[start:]),
                      "smallest_lead": round(min(leads), 4)})
    return cases


def weights(model):
    """Returns the sum of each tensor and 16 of its values."""
    entries = []
    for name, value in model.named_parameters():
        flat = value.flatten()
        places = [(i * (flat.numel() - 1)) // 15 for i in range(16)]
        entries.append({"name": name, "shape": list(value.shape), "sum": flat.double().sum().item(),
                        "places": places, "values": [flat[place].item() for place in places]})
    return entries


@torch.no_grad()
def expected(tokenizer):
    directory = AutoModelForCausalLM.from_pretrained(FOLDER / "model", dtype=torch.float32).eval()
    file = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=GGUF.name, dtype=torch.float32).eval()
    hub = AutoTokenizer.from_pretrained(FOLDER / "model")
    assert all(hub(r["prompt"]).input_ids == tokenizer.encode(r["prompt"]).ids for r in records("valid.jsonl"))
    return {"directory": {"losses": losses(directory, tokenizer), "greedy": greedy(directory, tokenizer)},
            "gguf": {"losses": losses(file, tokenizer), "greedy": greedy(file, tokenizer), "weights": weights(file)}}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(3)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizers" / "smollm.json"))
    model = pretrain(tokenizer)
    write_directory(model)
    write_gguf(model, tokenizer)
    results = expected(tokenizer)
    (FOLDER / "expected.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, result in results.items():
        tokens = sum(entry["tokens"] for entry in result["losses"])
        print(f"{name}: mean loss {sum(entry['loss_sum'] for entry in result['losses']) / tokens:.4f}",
              f"smallest lead {min(case['smallest_lead'] for case in result['greedy'])}")


if __name__ == "__main__":
    main()
