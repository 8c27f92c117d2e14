#include "tests/support/operands.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "runtime/check.h"

namespace lorica {
namespace {

// Columns left and right of a strided matrix: odd, so that rows start at every
// alignment.
constexpr int64_t kLeft = 3;
constexpr int64_t kRight = 4;
// Elements of which rows of a padded matrix have a multiple.
constexpr int64_t kPadding = 8;

template <typename T>
Tensor UploadAs(Device* device, const HostMatrix& values, Layout2d layout) {
  const int64_t left = layout == Layout2d::kStrided ? kLeft : 0;
  int64_t width = values.cols;
  if (layout == Layout2d::kStrided) width += kLeft + kRight;
  if (layout == Layout2d::kPadded) width = (width / kPadding + 1) * kPadding;
  std::vector<T> host(static_cast<size_t>(values.rows * width),
                      T(std::numeric_limits<float>::quiet_NaN()));
  for (int64_t r = 0; r < values.rows; ++r) {
    for (int64_t c = 0; c < values.cols; ++c) {
      host[static_cast<size_t>(r * width + left + c)] =
          T(static_cast<float>(values(r, c)));
    }
  }
  Tensor whole = Tensor::FromHost<T>(device, {values.rows, width}, host);
  return layout == Layout2d::kDense ? whole
                                    : whole.Cols({left, left + values.cols});
}

}  // namespace

double RoundTo(DType dtype, double value) {
  const auto single = static_cast<float>(value);
  return dtype == DType::kBF16 ? static_cast<float>(BFloat16(single)) : single;
}

HostMatrix RoundTo(DType dtype, HostMatrix values) {
  return reference::Map(std::move(values), [dtype](double value) {
    return RoundTo(dtype, value);
  });
}

HostMatrix RandomMatrix(const char* name, int64_t rows, int64_t cols,
                        DType dtype) {
  const RandomField field = {.seed = 1, .stream = StreamOf(name)};
  HostMatrix values(rows, cols);
  for (size_t i = 0; i < values.values.size(); ++i) {
    values.values[i] = RoundTo(dtype, 2.0 * field.Uniform(i) - 1.0);
  }
  return values;
}

HostMatrix Unreadable(int64_t rows, int64_t cols) {
  HostMatrix matrix(rows, cols);
  for (double& value : matrix.values) {
    value = std::numeric_limits<double>::quiet_NaN();
  }
  return matrix;
}

void Put(const HostMatrix& block, int64_t row, int64_t col, HostMatrix* to) {
  for (int64_t r = 0; r < block.rows; ++r) {
    for (int64_t c = 0; c < block.cols; ++c) {
      (*to)(row + r, col + c) = block(r, c);
    }
  }
}

std::vector<int32_t> RandomInts(const char* name, int64_t count, Range range) {
  const RandomField field = {.seed = 1, .stream = StreamOf(name)};
  std::vector<int32_t> values;
  for (int64_t i = 0; i < count; ++i) {
    const double place = field.Uniform(static_cast<uint64_t>(i));
    values.push_back(static_cast<int32_t>(
        range.begin +
        static_cast<int64_t>(place * static_cast<double>(range.size()))));
  }
  return values;
}

Tensor Upload(Device* device, const HostMatrix& values, DType dtype,
              Layout2d layout) {
  return dtype == DType::kBF16 ? UploadAs<BFloat16>(device, values, layout)
                               : UploadAs<float>(device, values, layout);
}

Tensor UploadVector(Device* device, const HostMatrix& values) {
  CHECK_EQ(values.rows, 1);
  return Upload(device, values, DType::kF32).Reshape({values.cols});
}

Tensor UploadInts(Device* device, const std::vector<int32_t>& values) {
  return Tensor::FromHost<int32_t>(
      device, {static_cast<int64_t>(values.size())}, values);
}

Tensor UploadLongs(Device* device, const std::vector<int64_t>& values) {
  return Tensor::FromHost<int64_t>(
      device, {static_cast<int64_t>(values.size())}, values);
}

Tensor Room(Device* device, int64_t rows, int64_t cols, DType dtype,
            Layout2d layout) {
  return Upload(device, Unreadable(rows, cols), dtype, layout);
}

std::string WordOf(DType dtype) {
  return dtype == DType::kBF16 ? "Bf16" : "F32";
}

std::string WordOf(Layout2d layout) {
  switch (layout) {
    case Layout2d::kDense:
      return "";
    case Layout2d::kStrided:
      return "Strided";
    case Layout2d::kPadded:
      return "Padded";
  }
  return "";
}

}  // namespace lorica
