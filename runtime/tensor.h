// An array on a device.
#ifndef LORICA_RUNTIME_TENSOR_H_
#define LORICA_RUNTIME_TENSOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "runtime/device.h"
#include "runtime/shape.h"

namespace lorica {

// A value: cheap to copy, copies and slices share storage, the last owner
// frees it. A default-constructed tensor is absent, as an optional operand is.
class Tensor {
 public:
  Tensor() = default;

  // Uninitialized storage of its own.
  static Tensor Empty(Device* device, Shape shape, DType dtype,
                      Lifetime lifetime = Lifetime::kOps);
  static Tensor Zeros(Device* device, Shape shape, DType dtype);
  // The same as Empty with `spare` columns or more that are free right of the
  // matrix, its rows at multiples of 64 elements; dense where `spare` is zero.
  static Tensor WithRoom(Device* device, Shape shape, DType dtype,
                         int64_t spare);
  // Memory that `owner` keeps alive, such as a mapped file. It must be
  // addressable by the device.
  static Tensor Borrow(Device* device, Shape shape, DType dtype, void* data,
                       std::shared_ptr<const void> owner);
  // A copy of host values.
  template <typename T>
  static Tensor FromHost(Device* device, Shape shape,
                         absl::Span<const T> values) {
    return CopyIn(device, shape, DTypeOf<T>::value, values.data(),
                  values.size());
  }

  bool present() const { return device_ != nullptr; }
  Device* device() const { return device_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  // Of the matrix; a vector [n] is one row of n columns.
  int64_t rows() const { return shape_.rank() == 2 ? shape_[0] : 1; }
  int64_t cols() const { return shape_[shape_.rank() == 2 ? 1 : 0]; }
  int64_t elements() const { return shape_.elements(); }
  bool dense() const { return rows() <= 1 || row_stride_ == cols(); }
  void* data() const { return data_; }
  View view() const {
    return present() ? View{data_, dtype_, rows(), cols(), row_stride_}
                     : View{};
  }

  // Columns right of the matrix, in its rows, that hold nothing: place for what
  // is to lie beside it. Rows keeps them, and Cols where it ends with the
  // matrix; all copies and slices mean the same columns.
  int64_t spare_cols() const { return spare_cols_; }
  // The first `cols` of them, uninitialized.
  Tensor Spare(int64_t cols) const;

  // Slices of a matrix, or of a vector's elements (Cols).
  Tensor Rows(Range range) const;
  Tensor Cols(Range range) const;
  // The same dense elements under another shape.
  Tensor Reshape(Shape shape) const;

  // Copies the elements, row after row, to the host; blocks.
  template <typename T>
  std::vector<T> ToHost() const {
    std::vector<T> values(static_cast<size_t>(elements()));
    CopyOut(DTypeOf<T>::value, values.data());
    return values;
  }
  // The elements of an F32 or BF16 tensor as floats; blocks.
  std::vector<float> ToFloats() const;
  // Between a dense tensor and host memory of the same type. CopyFrom is done
  // with the memory when it returns; CopyTo blocks.
  void CopyFrom(const void* host) const;
  void CopyTo(void* host) const;

 private:
  static Tensor CopyIn(Device* device, Shape shape, DType dtype,
                       const void* values, size_t count);
  void CopyOut(DType dtype, void* host) const;

  Device* device_ = nullptr;
  std::shared_ptr<const void> storage_;
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t row_stride_ = 0;
  int64_t spare_cols_ = 0;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_TENSOR_H_
