// Extents of an array of up to two dimensions, and what a kernel sees of it.
#ifndef LORICA_RUNTIME_SHAPE_H_
#define LORICA_RUNTIME_SHAPE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>

#include "runtime/dtype.h"

namespace lorica {

// A vector [n] or a matrix [rows, cols]. Everything Lorica computes with is
// one of the two: token-major activations [T, features], weights [O, I].
class Shape {
 public:
  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    for (const int64_t dim : dims) {
      dims_[rank_++] = dim;
    }
  }

  constexpr int rank() const { return rank_; }
  constexpr int64_t operator[](int dim) const { return dims_[dim]; }
  constexpr int64_t elements() const {
    return rank_ == 0 ? 0 : rank_ == 1 ? dims_[0] : dims_[0] * dims_[1];
  }
  friend constexpr bool operator==(const Shape& a, const Shape& b) {
    return a.rank_ == b.rank_ && a.dims_[0] == b.dims_[0] &&
           a.dims_[1] == b.dims_[1];
  }

  // "[3, 4]".
  std::string ToString() const {
    if (rank_ == 0) return "[]";
    std::string text = "[" + std::to_string(dims_[0]);
    if (rank_ == 2) text += ", " + std::to_string(dims_[1]);
    return text + "]";
  }

 private:
  int64_t dims_[2] = {0, 0};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << shape.ToString();
}

// A half-open range of indices.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;

  constexpr int64_t size() const { return end - begin; }
  friend constexpr bool operator==(const Range&, const Range&) = default;
};

inline std::ostream& operator<<(std::ostream& out, const Range& range) {
  return out << "[" << range.begin << ", " << range.end << ")";
}

// What a kernel sees of a Tensor: an address, a type, a matrix whose rows are
// dense and `row_stride` elements apart. A vector [n] is seen as one row.
// Owns nothing. A null `data` stands for an operand that is left out.
struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;

  constexpr bool present() const { return data != nullptr; }
  constexpr int64_t elements() const { return rows * cols; }
  constexpr bool dense() const { return rows <= 1 || row_stride == cols; }
  // constexpr, as device code may call only such functions of the host's.
  template <typename T>
  constexpr T* As() const {
    return static_cast<T*>(data);
  }
  template <typename T>
  constexpr T* Row(int64_t row) const {
    return static_cast<T*>(data) + row * row_stride;
  }
  // The address of an element, whatever its type.
  constexpr char* At(int64_t row, int64_t col) const {
    return static_cast<char*>(data) +
           static_cast<size_t>(row * row_stride + col) * SizeOf(dtype);
  }
  // A part of what is present.
  constexpr View Rows(Range range) const {
    return {At(range.begin, 0), dtype, range.size(), cols, row_stride};
  }
  constexpr View Cols(Range range) const {
    return {At(0, range.begin), dtype, rows, range.size(), row_stride};
  }
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_SHAPE_H_
