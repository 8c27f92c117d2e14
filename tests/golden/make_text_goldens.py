"""Writes token ids, texts and losses that the tokenizers and SmolLM2 must give.

    python3 tests/golden/make_text_goldens.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

needs torch, transformers, gguf and tokenizers. Without --gguf only tokenizers/ is
made anew.
"""

import argparse
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tricky_strings import STRINGS

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent.parent / "configs" / "data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CONVERSATIONS = [
    [("user", "Hello!")],
    [("system", "You answer in one word."), ("user", "What is the capital of France?")],
    [("user", "Hi"), ("assistant", "Hello, how can I help?")],
    [("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "and\n\ntwo lines?  "),
     ("assistant", " Yes.\n")],
    [("user", "Say <|im_end|> and <|endoftext|>."), ("assistant", "I'd rather not. \U0001f600")],
    [("system", ""), ("user", "")],
    [("user", "One"), ("assistant", "two"), ("user", "three"), ("assistant", "four")],
]
GENERATE_PROMPTS = [
    "The capital of France is",
    "Package: yelp\nSource: yelp\nSection: gnome\nDepends: libatk1.0-0, libc6\nHomepage: wiki.gnome.org/Apps/Yelp\n"
    "Description:",
]


def write_lines(path, entries):
    """Writes a JSON list, an entry a line."""
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def records(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def encoded(tokenizer, texts):
    """Returns for each text its ids and what they decode to."""
    cases = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    return cases


def train(pre_tokenizer, specials, normalizer=None, ignore_merges=False):
    """Returns a byte-level BPE of about 500 tokens, trained on a part of the data."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False, special_tokens=specials)
    texts = [r["prompt"] + r["completion"] for r in records("train.jsonl")[:1000]]
    tokenizer.train_from_iterator(texts + STRINGS, trainer)
    return tokenizer


def gpt2():
    return train(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), ["<|endoftext|>"])


def smollm():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return train(pre, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def llama3():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = train(pre, ["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer


def qwen2():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = train(pre, ["<|endoftext|>", "<|im_end|>"], normalizer=normalizers.NFC())
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return tokenizer


def merges_as_strings(path):
    """Rewrites a tokenizer.json's merges as "a b", as files older than tokenizers 0.20 have them."""
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))


def make_tokenizers():
    folder = HERE / "tokenizers"
    folder.mkdir(exist_ok=True)
    for make in (gpt2, smollm, llama3, qwen2):
        name = make.__name__
        path = folder / f"{name}.json"
        make().save(str(path), pretty=False)
        if name == "gpt2":
            merges_as_strings(path)
        tokenizer = Tokenizer.from_file(str(path))
        specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        texts = STRINGS + [f"{a}in {a}{b} text {b}" for a in specials for b in specials]
        write_lines(folder / f"{name}_expected.json", encoded(tokenizer, texts))
        print(f"tokenizers/{name}: {tokenizer.get_vocab_size()} tokens, {len(texts)} texts")


def make_tricky(tokenizer, shipped):
    """Writes ids of tricky strings and decodings of broken ids."""
    specials = ["<|im_start|>user\nhi<|im_end|>\n", "a<|endoftext|>b", "<|endoftext|>", " <|im_end|> <|im_end|>",
                "<|im_end", "<|im_end |>", "1<repo_name>2 <file_sep>  3"]
    cases = encoded(tokenizer, STRINGS + specials)
    for case in cases:
        other = shipped.encode(case["text"]).ids
        if other != case["ids"]:
            case["transformers_ids"] = other
    write_lines(HERE / "smollm2_tricky.json", cases)
    broken = []
    for text in ("\U0001f468\u200d\U0001f469", "\u4e94\u516d", "\u0e20\u0e32"):
        ids = tokenizer.encode(text).ids
        broken += [ids[:n] for n in range(1, len(ids))] + [ids[1:], ids[::-1]]
    write_lines(HERE / "smollm2_decode.json",
                [{"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)} for ids in broken])


def make_chat(hub, tokenizer):
    """Writes renderings of the chat template, with and without a generation prompt."""
    def render(turns, generate):
        messages = [{"role": role, "content": content} for role, content in turns]
        return hub.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)

    def length(text):
        return len(tokenizer.encode(text).ids)

    cases = []
    for turns in CONVERSATIONS:
        for generate in (False, True):
            text = render(turns, generate)
            case = {"messages": [{"role": role, "content": content} for role, content in turns],
                    "add_generation_prompt": generate, "text": text, "ids": tokenizer.encode(text).ids}
            if not generate:
                # An assistant's turn: after "assistant\n", up to its <|im_end|> and not the line end after it.
                case["trained"] = [[length(render(turns[:i], True)), length(render(turns[:i + 1], False)) - 1]
                                   for i, (role, _) in enumerate(turns) if role == "assistant"]
            cases.append(case)
    write_lines(HERE / "smollm2_chat.json", cases)


def make_tokens(tokenizer, eos):
    """Writes and returns the token ids of the validation records."""
    cases = [{"prompt": tokenizer.encode(r["prompt"]).ids,
              "completion": tokenizer.encode(r["completion"], add_special_tokens=False).ids + [eos]}
             for r in records("valid.jsonl")]
    write_lines(HERE / "smollm2_tokens.json", cases)
    return cases


def make_losses(model, cases):
    """Writes the loss of every validation record, summed over completion and eos."""
    import torch

    entries = []
    for index, case in enumerate(cases):
        ids = torch.tensor(case["prompt"] + case["completion"])
        first = len(case["prompt"])
        logits = model(input_ids=ids[None]).logits[0, first - 1:-1]
        loss = torch.nn.functional.cross_entropy(logits.double(), ids[first:], reduction="sum")
        entries.append({"index": index, "tokens": len(case["completion"]), "loss_sum": round(loss.item(), 6)})
    write_lines(HERE / "smollm2_loss.json", entries)
    tokens = sum(entry["tokens"] for entry in entries)
    print(f"smollm2: {tokens} target tokens, mean loss {sum(entry['loss_sum'] for entry in entries) / tokens:.5f}")


def make_generate(model, tokenizer):
    """Writes greedy continuations and by how much each token led the next best."""
    import torch

    cases = []
    for prompt in GENERATE_PROMPTS:
        ids, leads = tokenizer.encode(prompt).ids, []
        start = len(ids)
        while len(ids) < start + 16 and ids[-1] != 2:
            best = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            leads.append(round((best.values[0] - best.values[1]).item(), 4))
            ids.append(best.indices[0].item())
        cases.append({"prompt": prompt, "ids": ids[start:], "text": tokenizer.decode(ids[start:]), "leads": leads})
    write_lines(HERE / "smollm2_generate.json", cases)


def make_weights(model):
    """Writes a few values of some tensors: enough to catch a wrong scale, order or permutation."""
    entries = []
    for name, value in model.state_dict().items():
        if ".0." in name or ".29." in name or "layers" not in name:
            flat = value.flatten()
            places = [(i * (flat.numel() - 1)) // 15 for i in range(16)]
            entries.append({"name": name, "shape": list(value.shape), "sum": flat.double().sum().item(),
                            "places": places, "values": [flat[place].item() for place in places]})
    write_lines(HERE / "smollm2_weights.json", entries)


def make_smollm2(gguf):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    hub = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    shipped = hub.backend_tokenizer
    # transformers reads the merges but not tokenizer.ggml.pre, "smollm", which
    # splits digits from the white space before them: the model was trained so,
    # its published tokenizer.json does so and llama.cpp does so.
    tokenizer = Tokenizer.from_str(shipped.to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False)])
    for r in records("valid.jsonl"):
        assert all(tokenizer.encode(text).ids == shipped.encode(text).ids for text in r.values())
    make_tricky(tokenizer, shipped)
    make_chat(hub, tokenizer)
    cases = make_tokens(tokenizer, hub.eos_token_id)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
        make_weights(model)
        make_losses(model, cases)
        make_generate(model, tokenizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=pathlib.Path)
    options = parser.parse_args()
    make_tokenizers()
    if options.gguf:
        make_smollm2(options.gguf)


if __name__ == "__main__":
    main()
