// How a tensor group splits linear layers: what happens to the input on the
// way in and to the output on the way out. Sequence parallelism is these
// constants and nothing else.
#ifndef LORICA_MODEL_PLANS_H_
#define LORICA_MODEL_PLANS_H_

#include "parallel/layout.h"

namespace lorica {

struct LinearPlan {
  Transition input;
  Transition output;
};

// How the whole model is split.
struct ModelPlan {
  // Every rank computes some of the output features: q, k, v, gate, up, head.
  LinearPlan column;
  // Every rank reads some of the input features: o, down, embedding.
  LinearPlan row;
};

// Between linear layers every rank holds all tokens.
inline constexpr ModelPlan kTensorParallel = {
    .column = {.input = {Layout::kInvariant, Layout::kReplicated},
               .output = Stay(Layout::kSharded)},
    .row = {.input = Stay(Layout::kSharded),
            .output = {Layout::kPartial, Layout::kInvariant}},
};

// Between linear layers every rank holds some of the tokens.
inline constexpr ModelPlan kSequenceParallel = {
    .column = {.input = {Layout::kSharded, Layout::kReplicated},
               .output = Stay(Layout::kSharded)},
    .row = {.input = Stay(Layout::kSharded),
            .output = {Layout::kPartial, Layout::kSharded}},
};

}  // namespace lorica

#endif  // LORICA_MODEL_PLANS_H_
