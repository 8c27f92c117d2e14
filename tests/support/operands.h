// Operands of op cases: random values a type can hold, and their way to a
// device in the memory layouts that kernels must cope with.
#ifndef LORICA_TESTS_SUPPORT_OPERANDS_H_
#define LORICA_TESTS_SUPPORT_OPERANDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/random.h"
#include "runtime/tensor.h"
#include "tests/support/reference.h"

namespace lorica {

using HostMatrix = reference::Matrix<double>;

double RoundTo(DType dtype, double value);
HostMatrix RoundTo(DType dtype, HostMatrix values);

// Values in [-1, 1) that `dtype` holds exactly, a function of `name` alone.
HostMatrix RandomMatrix(const char* name, int64_t rows, int64_t cols,
                        DType dtype);
// All NaN: what nobody may read.
HostMatrix Unreadable(int64_t rows, int64_t cols);
// Overwrites the elements from (row, col) on with those of `block`.
void Put(const HostMatrix& block, int64_t row, int64_t col, HostMatrix* to);
// Integers in [begin, end).
std::vector<int32_t> RandomInts(const char* name, int64_t count, Range range);

// Whether a matrix is a slice of a wider one: at an odd offset and of an odd
// stride, or with all of its rows at multiples of 16 bytes.
enum class Layout2d : uint8_t { kDense, kStrided, kPadded };
inline constexpr Layout2d kEveryLayout[] = {
    Layout2d::kDense, Layout2d::kStrided, Layout2d::kPadded};

Tensor Upload(Device* device, const HostMatrix& values, DType dtype,
              Layout2d layout = Layout2d::kDense);
// As a vector rather than a matrix of one row.
Tensor UploadVector(Device* device, const HostMatrix& values);
Tensor UploadInts(Device* device, const std::vector<int32_t>& values);
Tensor UploadLongs(Device* device, const std::vector<int64_t>& values);
// Room for a result, filled with NaN so that what is not written shows.
Tensor Room(Device* device, int64_t rows, int64_t cols, DType dtype,
            Layout2d layout = Layout2d::kDense);

// "Bf16", "F32".
std::string WordOf(DType dtype);
// "", "Strided", "Padded".
std::string WordOf(Layout2d layout);

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_OPERANDS_H_
