// Elementwise sums and maxima over the terms of several ranks.
#ifndef LORICA_PARALLEL_REDUCE_H_
#define LORICA_PARALLEL_REDUCE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace lorica {

// out[i] = the sum of term[i] over the terms, in the tree of tree_sum.h. T is
// float, double, int32_t, int64_t or BFloat16, which is summed in float and
// rounded once. `out` may be one of the terms.
template <typename T>
void SumTerms(absl::Span<const void* const> terms, int64_t count, void* out);

// out[i] = the largest term[i], NaN if one is. T is float or int64_t.
template <typename T>
void MaxTerms(absl::Span<const void* const> terms, int64_t count, void* out);

}  // namespace lorica

#endif  // LORICA_PARALLEL_REDUCE_H_
