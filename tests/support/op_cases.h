// One list of cases for every entry of the Backend table. Each backend's
// results are compared with a reference in double: the CPU's in
// ops_reference_test, those of CUDA in tests/runtime/cuda and, on a GPU, in
// tests/cuda_device. ops_bench times the cases of model size.
#ifndef LORICA_TESTS_SUPPORT_OP_CASES_H_
#define LORICA_TESTS_SUPPORT_OP_CASES_H_

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/tensor.h"
#include "tests/support/reference.h"

namespace lorica {

// A result of a case by its name in backend.h: the device's.
struct OpResult {
  std::string name;
  Tensor value;
};

// The exact value of that result and how far off each element may be.
struct OpExpectation {
  std::string name;
  reference::Matrix<double> value;
  reference::Matrix<double> tolerance;
};

// A case whose operands lie on a device.
struct PreparedOp {
  // Runs the entry once. Results that are added to grow with every run.
  std::function<void()> run;
  std::vector<OpResult> results;
};

struct OpCase {
  std::string entry;  // Of the Backend table.
  std::string name;   // In words; unique together with `entry`.
  double flops = 0;   // Of one run, where products dominate.
  double bytes = 0;   // Read and written at least, where memory does.
  std::function<PreparedOp(Device*)> prepare;
  // In the order of the results. What a first run must yield.
  std::function<std::vector<OpExpectation>()> expect;
};

std::ostream& operator<<(std::ostream& out, const OpCase& op_case);

// Where the device's values first leave the tolerance, in words; empty where
// they do not.
std::string FirstDeviation(const OpExpectation& expected, const Tensor& got);

// Cases small enough for a scalar reference.
std::vector<OpCase> OpCases();
// The shapes of a 135M Llama in training and generation; `expect` is empty.
std::vector<OpCase> ModelSizeCases();

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_OP_CASES_H_
