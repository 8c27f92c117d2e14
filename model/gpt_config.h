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

struct GptConfig {
  std::string architecture = "LlamaForCausalLM";
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
  RopeConfig rope;

  // What no later code checks again: sizes positive, heads that divide, an even
  // head_dim with as many frequencies.
  absl::Status Validate() const;
};

}  // namespace lorica

#endif  // LORICA_MODEL_GPT_CONFIG_H_
