// A tiny Llama or Qwen 2 on disk, as a Hugging Face directory and as a GGUF
// file.
#ifndef LORICA_TESTS_SUPPORT_TINY_LLAMA_H_
#define LORICA_TESTS_SUPPORT_TINY_LLAMA_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/check.h"
#include "runtime/dtype.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/random.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"

namespace lorica {

struct TinyLlama {
  int64_t vocab = 24;
  int64_t hidden = 32;
  int64_t layers = 2;
  int64_t heads = 3;
  int64_t kv_heads = 1;
  int64_t head_dim = 8;
  int64_t mlp = 40;
  bool tied = false;
  bool qwen2 = false;

  struct Weight {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  // By Hugging Face name; every value a BF16 number of its own field.
  std::map<std::string, Weight> Weights() const {
    std::map<std::string, Weight> weights;
    const auto add = [&](std::string name, std::vector<int64_t> shape) {
      int64_t elements = 1;
      for (const int64_t dim : shape) elements *= dim;
      const RandomField field{.seed = 1, .stream = StreamOf(name.c_str())};
      Weight weight{std::move(shape), {}};
      for (int64_t i = 0; i < elements; ++i) {
        weight.values.push_back(static_cast<float>(
            BFloat16(field.Uniform(static_cast<uint64_t>(i)) - 0.5f)));
      }
      weights.emplace(std::move(name), std::move(weight));
    };
    add("model.embed_tokens.weight", {vocab, hidden});
    add("model.norm.weight", {hidden});
    if (!tied) add("lm_head.weight", {vocab, hidden});
    for (int64_t i = 0; i < layers; ++i) {
      const std::string layer = absl::StrCat("model.layers.", i, ".");
      add(layer + "input_layernorm.weight", {hidden});
      add(layer + "self_attn.q_proj.weight", {heads * head_dim, hidden});
      add(layer + "self_attn.k_proj.weight", {kv_heads * head_dim, hidden});
      add(layer + "self_attn.v_proj.weight", {kv_heads * head_dim, hidden});
      if (qwen2) {
        add(layer + "self_attn.q_proj.bias", {heads * head_dim});
        add(layer + "self_attn.k_proj.bias", {kv_heads * head_dim});
        add(layer + "self_attn.v_proj.bias", {kv_heads * head_dim});
      }
      add(layer + "self_attn.o_proj.weight", {hidden, heads * head_dim});
      add(layer + "post_attention_layernorm.weight", {hidden});
      add(layer + "mlp.gate_proj.weight", {mlp, hidden});
      add(layer + "mlp.up_proj.weight", {mlp, hidden});
      add(layer + "mlp.down_proj.weight", {hidden, mlp});
    }
    return weights;
  }

  Json Config() const {
    return {
        {"architectures", {qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
        {"vocab_size", vocab},
        {"hidden_size", hidden},
        {"num_hidden_layers", layers},
        {"num_attention_heads", heads},
        {"num_key_value_heads", kv_heads},
        {"head_dim", head_dim},
        {"intermediate_size", mlp},
        {"max_position_embeddings", 128},
        {"rms_norm_eps", 1e-5},
        {"tie_word_embeddings", tied}};
  }

  static std::string BytesAs(StoredType type,
                             const std::vector<float>& values) {
    std::string bytes;
    for (const float value : values) {
      bytes += type == StoredType::kBF16 ? BytesOfValue(BFloat16(value))
                                         : BytesOfValue(value);
    }
    return bytes;
  }

  // kF32 or kBF16.
  static void WriteWeights(const std::string& path, StoredType type,
                           const std::map<std::string, Weight>& weights) {
    std::map<std::string, std::string> bytes;
    std::vector<SafetensorsData> data;
    for (const auto& [name, weight] : weights) {
      bytes[name] = BytesAs(type, weight.values);
      data.push_back({{name, type, weight.shape}, bytes[name]});
    }
    CHECK(WriteSafetensors(path, data, {{"format", "pt"}}).ok());
  }

  void WriteDirectory(const std::string& directory, StoredType type) const {
    WriteBytes(directory + "/config.json", Config().dump());
    WriteWeights(directory + "/model.safetensors", type, Weights());
  }

  void AddGgufValues(GgufBuilder* builder) const {
    const std::string architecture = qwen2 ? "qwen2" : "llama";
    const auto size = [&](const char* key, int64_t value) {
      builder->U32(absl::StrCat(architecture, ".", key),
                   static_cast<uint32_t>(value));
    };
    builder->String("general.architecture", architecture);
    size("block_count", layers);
    size("embedding_length", hidden);
    size("feed_forward_length", mlp);
    size("context_length", 128);
    size("attention.head_count", heads);
    size("attention.head_count_kv", kv_heads);
    size("attention.key_length", head_dim);
    size("attention.value_length", head_dim);
    size("rope.dimension_count", head_dim);
    builder->F32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  }

  // kF32 or kBF16, with the rows of a Llama's q and k interleaved as converters
  // do.
  void AddGgufWeights(StoredType type, GgufBuilder* builder) const {
    for (const auto& [name, weight] : Weights()) {
      const bool rope = !qwen2 && (absl::StrContains(name, ".q_proj.") ||
                                   absl::StrContains(name, ".k_proj."));
      builder->Tensor(
          GgufName(name), type, weight.shape,
          BytesAs(type, rope ? Interleaved(weight) : weight.values));
    }
  }

  static std::string GgufName(const std::string& name) {
    return absl::StrReplaceAll(name, {{"model.embed_tokens", "token_embd"},
                                      {"model.norm", "output_norm"},
                                      {"lm_head", "output"},
                                      {"model.layers", "blk"},
                                      {"input_layernorm", "attn_norm"},
                                      {"post_attention_layernorm", "ffn_norm"},
                                      {"self_attn.o_proj", "attn_output"},
                                      {"self_attn.q_proj", "attn_q"},
                                      {"self_attn.k_proj", "attn_k"},
                                      {"self_attn.v_proj", "attn_v"},
                                      {"mlp.gate_proj", "ffn_gate"},
                                      {"mlp.up_proj", "ffn_up"},
                                      {"mlp.down_proj", "ffn_down"}});
  }

 private:
  // Rows [head, half, j] in the order [head, j, half].
  std::vector<float> Interleaved(const Weight& weight) const {
    std::vector<float> values;
    const int64_t cols = weight.shape[1];
    for (int64_t head = 0; head < weight.shape[0] / head_dim; ++head) {
      for (int64_t j = 0; j < head_dim / 2; ++j) {
        for (int64_t half = 0; half < 2; ++half) {
          const int64_t row = head * head_dim + half * head_dim / 2 + j;
          values.insert(values.end(), weight.values.begin() + row * cols,
                        weight.values.begin() + (row + 1) * cols);
        }
      }
    }
    return values;
  }
};

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_TINY_LLAMA_H_
