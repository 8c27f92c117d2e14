#include "model/gpt_config.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lorica {

absl::Status GptConfig::Validate() const {
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", vocab_size},
      {"hidden_size", hidden_size},
      {"num_hidden_layers", num_layers},
      {"num_attention_heads", num_heads},
      {"num_key_value_heads", num_kv_heads},
      {"head_dim", head_dim},
      {"intermediate_size", intermediate_size},
      {"max_position_embeddings", max_positions},
  };
  constexpr int64_t kLimit = int64_t{1} << 31;
  for (const auto& [name, size] : sizes) {
    if (size <= 0 || size >= kLimit) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the model's ", name, " is ", size, "; it must be at least 1"));
    }
  }
  if (num_heads % num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's ", num_heads, " heads do not divide over ",
                     num_kv_heads, " key/value heads"));
  }
  if (head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's head_dim is ", head_dim,
                     "; only even ones are supported"));
  }
  if (positions == Positions::kRotary &&
      rope.inv_freq.size() != static_cast<size_t>(head_dim / 2)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", rope.inv_freq.size(),
                     " rotary frequencies for a head_dim of ", head_dim));
  }
  return absl::OkStatus();
}

}  // namespace lorica
