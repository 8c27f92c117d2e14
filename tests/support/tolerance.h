// How far a result may lie from its exact value. Every comparison of a kernel
// with a reference takes its bound from here; no test has one of its own.
#ifndef LORICA_TESTS_SUPPORT_TOLERANCE_H_
#define LORICA_TESTS_SUPPORT_TOLERANCE_H_

#include <cmath>
#include <cstdint>

#include "runtime/dtype.h"

namespace lorica {

// The largest relative error of rounding to `dtype`.
constexpr double UnitRoundoff(DType dtype) {
  return dtype == DType::kBF16 ? 0x1p-8 : 0x1p-24;
}

// The magnitudes an error is proportional to.
struct Magnitudes {
  double value;    // Of the result itself, rounded once on the way out.
  double rounded;  // Of the terms rounded to the intermediate type.
  double summed;   // Of the terms summed in F32.
};

// A bound for a result that sums `length` terms in F32, after rounding some of
// them, or their factors, to `intermediate`, and is stored as `result`. Higham,
// Accuracy and Stability of Numerical Algorithms, ch. 3: a sum of n terms is
// off by at most n u times the sum of their magnitudes, to first order. The
// factor 2 covers the second order and that a term may be rounded twice. The
// last term is the smallest normal number: smaller ones may be flushed to zero.
constexpr double Tolerance(DType intermediate, DType result, int64_t length,
                           const Magnitudes& of) {
  const double summed =
      static_cast<double>(length) * UnitRoundoff(DType::kF32) * of.summed;
  return 2.0 * (UnitRoundoff(intermediate) * of.rounded + summed) +
         UnitRoundoff(result) * of.value + 0x1p-126;
}

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_TOLERANCE_H_
