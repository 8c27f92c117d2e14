// What every communicator must do, whatever carries its bytes. Data are
// integer-valued and their sums exact, so results are compared for equality.
#ifndef LORICA_TESTS_PARALLEL_COMMUNICATOR_SUITE_H_
#define LORICA_TESTS_PARALLEL_COMMUNICATOR_SUITE_H_

#include <ostream>
#include <vector>

#include "parallel/communicator.h"

namespace lorica {

struct CommunicatorCase {
  const char* name;
  void (*check)(Communicator& world);  // Called by all ranks of `world`.
};

inline std::ostream& operator<<(std::ostream& out, const CommunicatorCase& c) {
  return out << c.name;
}

std::vector<CommunicatorCase> CommunicatorCases();

}  // namespace lorica

#endif  // LORICA_TESTS_PARALLEL_COMMUNICATOR_SUITE_H_
