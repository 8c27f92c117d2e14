#include <cstring>

#include "cuda_target.h"
#include "tests/support/cuda_sim/fragments.h"

namespace lorica::cuda_sim {
namespace {

struct Operands {
  PerLane<uint16_t, 8> a;
  PerLane<uint16_t, 4> b;
};

__global__ void Multiply(const Operands* operands, PerLane<float, 4>* result) {
  const size_t lane = threadIdx.x;
  uint32_t a[4];
  uint32_t b[2];
  std::memcpy(a, operands->a[lane].data(), sizeof(a));
  std::memcpy(b, operands->b[lane].data(), sizeof(b));
  float d[4] = {};
  cuda::MmaBf16(d, a, b[0], b[1]);
  std::memcpy((*result)[lane].data(), d, sizeof(d));
}

__global__ void LoadRows(const PerLane<uint16_t, 8>* rows, Load load,
                         PerLane<uint16_t, 8>* result) {
  const size_t lane = threadIdx.x;
  auto* shared = reinterpret_cast<PerLane<uint16_t, 8>*>(cuda::DynamicShared());
  (*shared)[lane] = (*rows)[lane];
  __syncwarp();
  uint32_t r[4];
  if (load == Load::kPlain) {
    cuda::LoadMatrices(r, (*shared)[lane].data());
  } else {
    cuda::LoadMatricesTransposed(r, (*shared)[lane].data());
  }
  std::memcpy((*result)[lane].data(), r, sizeof(r));
}

// A copy of `value` in the simulator's memory.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const T& value)
      : data_(static_cast<T*>(Allocate(sizeof(T)))) {
    *data_ = value;
    MarkWritten(data_, sizeof(T));
  }
  ~OnDevice() { Free(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// A block of one warp.
template <typename... Params, typename... Args>
void RunWarp(size_t shared_bytes, void (*kernel)(Params...), Args... args) {
  using Call = Arguments<Params...>;
  Run({.kernel = reinterpret_cast<const void*>(kernel),
       .grid = dim3(1),
       .block = dim3(kLanes),
       .shared_bytes = shared_bytes,
       .arguments = std::make_shared<Call>(Call{kernel, {args...}}),
       .argument_bytes = sizeof(Call),
       .run_thread = Call::RunThread});
}

}  // namespace

PerLane<float, 4> MultiplyFragments(const PerLane<uint16_t, 8>& a,
                                    const PerLane<uint16_t, 4>& b) {
  const OnDevice<Operands> operands({a, b});
  const OnDevice<PerLane<float, 4>> result({});
  RunWarp(0, Multiply, operands.get(), result.get());
  return *result.get();
}

PerLane<uint16_t, 8> LoadFragments(const PerLane<uint16_t, 8>& rows,
                                   Load load) {
  const OnDevice<PerLane<uint16_t, 8>> source(rows);
  const OnDevice<PerLane<uint16_t, 8>> result({});
  RunWarp(sizeof(rows), LoadRows, source.get(), load, result.get());
  return *result.get();
}

}  // namespace lorica::cuda_sim
