// The shape of a GPT-style model, in Hugging Face's words.
#ifndef LORICA_MODEL_GPT_CONFIG_H_
#define LORICA_MODEL_GPT_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lorica {

// Rotary positions. Position t of frequency j turns by t * inv_freq[j].
struct RopeConfig {
  std::vector<float> inv_freq;     // [head_dim / 2], scaling already applied.
  float attention_scaling = 1.0f;  // Multiplies cos and sin.
};

// Whose names the parameters have, and how they lie in files.
enum class Family : uint8_t { kLlama, kGpt2 };

// By the root mean square of a row, or by its mean and deviation, with a bias.
enum class NormKind : uint8_t { kRms, kLayer };

// Turned heads, or a learned vector added to each token's.
enum class Positions : uint8_t { kRotary, kLearned };

// Between the products of an MLP: silu(gate) * up of two, or gelu of one.
enum class Activation : uint8_t { kSwiglu, kGelu };

struct GptConfig {
  std::string architecture = "LlamaForCausalLM";
  Family family = Family::kLlama;
  NormKind norm = NormKind::kRms;
  Positions positions = Positions::kRotary;
  Activation activation = Activation::kSwiglu;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // Of queries.
  int64_t num_kv_heads = 0;  // Divides num_heads.
  int64_t head_dim = 0;      // Even.
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;
  float norm_epsilon = 1e-5f;
  bool tied_head = false;  // lm_head is the embedding's transpose.
  bool qkv_bias = false;   // q, k and v add one, as Qwen 2's do.
  RopeConfig rope;         // Of rotary positions alone.

  // What no later code checks again: sizes positive, heads that divide, an even
  // head_dim, with as many frequencies where they are rotary.
  absl::Status Validate() const;
};

}  // namespace lorica

#endif  // LORICA_MODEL_GPT_CONFIG_H_
