// Adapters as llama.cpp loads them: a GGUF file of factors.
#ifndef LORICA_MODEL_EXPORT_GGUF_LORA_H_
#define LORICA_MODEL_EXPORT_GGUF_LORA_H_

#include <string>

#include "absl/status/status.h"
#include "model/gpt_config.h"
#include "model/peft_adapter.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// Writes the factors as `type`, F32, BF16 or F16, under the names that the
// weights have in a GGUF of the model, "blk.0.attn_q.weight.lora_a" [R, I] and
// ".lora_b" [O, R]. Rows of B of q and k are interleaved as those of W are.
//
// llama.cpp scales every module by one alpha over the module's rank. So alpha
// is what most modules need it to be: alpha itself, or alpha sqrt(R) of
// rank-stabilized ones. Where patterns give a module another, the ratio is
// multiplied into its B.
//
// The adapter must be checked against the model. Errors: a value that `type`
// cannot hold; writing.
absl::Status WriteGgufLora(const std::string& path, const PeftAdapter& adapter,
                           const GptConfig& config, StoredType type);

}  // namespace lorica

#endif  // LORICA_MODEL_EXPORT_GGUF_LORA_H_
