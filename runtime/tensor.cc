#include "runtime/tensor.h"

#include <cstring>
#include <utility>

#include "runtime/allocator.h"
#include "runtime/check.h"

namespace lorica {
namespace {

// Rows begin with a cache line of 128 bytes, whatever the type.
constexpr int64_t kRowUnit = 64;

// A block of device memory that returns to its allocator with the last tensor.
struct Block {
  Block(Allocator* owner, size_t size, Lifetime life)
      : allocator(owner),
        data(owner->Allocate(size, life)),
        bytes(size),
        lifetime(life) {}
  ~Block() { allocator->Release(data, bytes, lifetime); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  Allocator* allocator;
  void* data;
  size_t bytes;
  Lifetime lifetime;
};

}  // namespace

Tensor Tensor::Empty(Device* device, Shape shape, DType dtype,
                     Lifetime lifetime) {
  CHECK(device != nullptr);
  const size_t bytes = static_cast<size_t>(shape.elements()) * SizeOf(dtype);
  auto block = std::make_shared<Block>(&device->allocator(), bytes, lifetime);
  void* data = block->data;
  return Borrow(device, shape, dtype, data, std::move(block));
}

Tensor Tensor::Zeros(Device* device, Shape shape, DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  Tensor tensor = Empty(device, shape, dtype);
  device->backend().fill(device->queue(), tensor.view(), 0.0f);
  return tensor;
}

Tensor Tensor::WithRoom(Device* device, Shape shape, DType dtype,
                        int64_t spare) {
  CHECK_EQ(shape.rank(), 2);
  CHECK_GE(spare, 0);
  if (spare == 0) return Empty(device, shape, dtype);
  const int64_t stride =
      (shape[1] + spare + kRowUnit - 1) / kRowUnit * kRowUnit;
  Tensor tensor = Empty(device, {shape[0], stride}, dtype);
  tensor.shape_ = shape;
  tensor.spare_cols_ = stride - shape[1];
  return tensor;
}

Tensor Tensor::Borrow(Device* device, Shape shape, DType dtype, void* data,
                      std::shared_ptr<const void> owner) {
  CHECK(device != nullptr);
  CHECK(shape.rank() == 1 || shape.rank() == 2) << shape;
  Tensor tensor;
  tensor.device_ = device;
  tensor.storage_ = std::move(owner);
  tensor.data_ = data;
  tensor.dtype_ = dtype;
  tensor.shape_ = shape;
  tensor.row_stride_ = tensor.cols();
  return tensor;
}

Tensor Tensor::Rows(Range range) const {
  CHECK_EQ(shape_.rank(), 2);
  CHECK(0 <= range.begin && range.begin <= range.end && range.end <= shape_[0])
      << range << " of " << shape_;
  Tensor slice = *this;
  slice.shape_ = {range.size(), shape_[1]};
  slice.data_ = static_cast<char*>(data_) +
                static_cast<size_t>(range.begin * row_stride_) * SizeOf(dtype_);
  return slice;
}

Tensor Tensor::Cols(Range range) const {
  CHECK(present());
  CHECK(0 <= range.begin && range.begin <= range.end && range.end <= cols())
      << range << " of " << shape_;
  Tensor slice = *this;
  if (range.end != cols()) slice.spare_cols_ = 0;
  slice.shape_ =
      shape_.rank() == 2 ? Shape{shape_[0], range.size()} : Shape{range.size()};
  slice.data_ = static_cast<char*>(data_) +
                static_cast<size_t>(range.begin) * SizeOf(dtype_);
  return slice;
}

Tensor Tensor::Spare(int64_t cols) const {
  CHECK(0 <= cols && cols <= spare_cols_)
      << cols << " of " << spare_cols_ << " beside " << shape_;
  Tensor spare = *this;
  spare.shape_ = {shape_[0], cols};
  spare.data_ = static_cast<char*>(data_) +
                static_cast<size_t>(shape_[1]) * SizeOf(dtype_);
  spare.spare_cols_ = spare_cols_ - cols;
  return spare;
}

Tensor Tensor::Reshape(Shape shape) const {
  CHECK(dense()) << shape_;
  CHECK_EQ(shape.elements(), elements()) << shape_ << " as " << shape;
  Tensor tensor = *this;
  tensor.shape_ = shape;
  tensor.row_stride_ = tensor.cols();
  tensor.spare_cols_ = 0;
  return tensor;
}

Tensor Tensor::CopyIn(Device* device, Shape shape, DType dtype,
                      const void* values, size_t count) {
  CHECK_EQ(static_cast<size_t>(shape.elements()), count) << shape;
  Tensor tensor = Empty(device, shape, dtype);
  tensor.CopyFrom(values);
  return tensor;
}

void Tensor::CopyFrom(const void* host) const {
  CHECK(present() && dense());
  device_->backend().copy_in(device_->queue(), data_, host,
                             static_cast<size_t>(elements()) * SizeOf(dtype_));
}

void Tensor::CopyTo(void* host) const {
  CHECK(present() && dense());
  device_->backend().copy_out(device_->queue(), host, data_,
                              static_cast<size_t>(elements()) * SizeOf(dtype_));
  device_->Synchronize();
}

void Tensor::CopyOut(DType dtype, void* host) const {
  CHECK(present());
  CHECK_EQ(dtype_, dtype);
  if (dense()) return CopyTo(host);
  const size_t row_bytes = static_cast<size_t>(cols()) * SizeOf(dtype_);
  const size_t stride = static_cast<size_t>(row_stride_) * SizeOf(dtype_);
  for (int64_t row = 0; row < rows(); ++row) {
    const size_t i = static_cast<size_t>(row);
    device_->backend().copy_out(
        device_->queue(), static_cast<char*>(host) + i * row_bytes,
        static_cast<const char*>(data_) + i * stride, row_bytes);
  }
  device_->Synchronize();
}

std::vector<float> Tensor::ToFloats() const {
  if (dtype_ == DType::kF32) return ToHost<float>();
  const std::vector<BFloat16> narrow = ToHost<BFloat16>();
  return {narrow.begin(), narrow.end()};
}

}  // namespace lorica
