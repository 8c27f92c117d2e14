#include "tests/support/op_cases.h"

#include <ostream>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {

std::ostream& operator<<(std::ostream& out, const OpCase& op_case) {
  return out << op_case.entry << "/" << op_case.name;
}

std::vector<OpCase> OpCases() {
  OpCaseList list;
  AddElementwiseCases(&list);
  AddProductCases(&list);
  AddLoraCases(&list);
  AddLayerCases(&list);
  AddAttentionCases(&list);
  AddRowCases(&list);
  AddHeadCases(&list);
  return list;
}

}  // namespace lorica
