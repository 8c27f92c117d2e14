// The parts of the list of op cases, one source file per group of entries.
#ifndef LORICA_TESTS_SUPPORT_OP_CASE_LIST_H_
#define LORICA_TESTS_SUPPORT_OP_CASE_LIST_H_

#include <functional>
#include <vector>

#include "tests/support/op_cases.h"
#include "tests/support/operands.h"
#include "tests/support/tolerance.h"

namespace lorica {

using OpCaseList = std::vector<OpCase>;

void AddElementwiseCases(OpCaseList* list);
void AddProductCases(OpCaseList* list);
void AddLoraCases(OpCaseList* list);
void AddNormCases(OpCaseList* list);
void AddLayerCases(OpCaseList* list);  // Rope, SwiGLU, GELU, AdamW.
void AddAttentionCases(OpCaseList* list);
void AddRowCases(OpCaseList* list);  // Gather, scatter, dropout.
void AddHeadCases(OpCaseList* list);

// The expectation of `value` whose errors are proportional to these
// magnitudes; see Tolerance.
struct Bound {
  DType intermediate = DType::kF32;
  DType result = DType::kF32;
  int64_t length = 1;
};
inline OpExpectation Expect(std::string name, const HostMatrix& value,
                            const Bound& bound, const HostMatrix& rounded,
                            const HostMatrix& summed) {
  HostMatrix tolerance(value.rows, value.cols);
  for (size_t i = 0; i < tolerance.values.size(); ++i) {
    tolerance.values[i] =
        Tolerance(bound.intermediate, bound.result, bound.length,
                  {.value = std::abs(value.values[i]),
                   .rounded = rounded.values[i],
                   .summed = summed.values[i]});
  }
  return {std::move(name), value, tolerance};
}
// Where the same terms are rounded and summed.
inline OpExpectation Expect(std::string name, const HostMatrix& value,
                            const Bound& bound, const HostMatrix& terms) {
  return Expect(std::move(name), value, bound, terms, terms);
}

inline constexpr DType kComputeTypes[] = {DType::kF32, DType::kBF16};

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_OP_CASE_LIST_H_
