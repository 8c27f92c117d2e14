#include "tests/support/op_cases.h"

#include <cmath>
#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {

std::ostream& operator<<(std::ostream& out, const OpCase& op_case) {
  return out << op_case.entry << "/" << op_case.name;
}

std::string FirstDeviation(const OpExpectation& expected, const Tensor& got) {
  const std::vector<float> values = got.ToFloats();
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = std::abs(values[i] - expected.value.values[i]);
    if (error <= expected.tolerance.values[i]) continue;  // False for NaN.
    const size_t cols = static_cast<size_t>(expected.value.cols);
    return expected.name + "[" + std::to_string(i / cols) + ", " +
           std::to_string(i % cols) + "] is " + std::to_string(values[i]) +
           ", not " + std::to_string(expected.value.values[i]) + " within " +
           std::to_string(expected.tolerance.values[i]);
  }
  return "";
}

std::vector<OpCase> OpCases() {
  OpCaseList list;
  AddElementwiseCases(&list);
  AddProductCases(&list);
  AddLoraCases(&list);
  AddNormCases(&list);
  AddLayerCases(&list);
  AddAttentionCases(&list);
  AddRowCases(&list);
  AddHeadCases(&list);
  return list;
}

}  // namespace lorica
