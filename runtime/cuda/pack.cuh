// Elements by the pack: what a thread loads, computes in F32 and stores at
// once. Packs of more than one take 16-byte accesses at multiples of 16.
#ifndef LORICA_RUNTIME_CUDA_PACK_CUH_
#define LORICA_RUNTIME_CUDA_PACK_CUH_

#include <bit>
#include <cstdint>
#include <initializer_list>

#include "cuda_target.h"
#include "runtime/dtype.h"
#include "runtime/random.h"
#include "runtime/shape.h"

namespace lorica::cuda {

// Moved as the bits that it is: the simulator sees accesses to numbers, not to
// objects of a class.
using bf16 = __nv_bfloat16;

inline constexpr int kWidePack = 8;
// Of F32, one access.
inline constexpr int kShortPack = 4;

template <int kN>
struct Pack {
  float v[kN];
};

__device__ __forceinline__ uint32_t Bf16Pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ float LowHalf(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
__device__ __forceinline__ float HighHalf(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

__device__ __forceinline__ Pack<kWidePack> LoadWide(const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0];
  const float4 b = reinterpret_cast<const float4*>(from)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ Pack<kWidePack> LoadWide(const bf16* from) {
  const uint4 w = *reinterpret_cast<const uint4*>(from);
  return {{LowHalf(w.x), HighHalf(w.x), LowHalf(w.y), HighHalf(w.y),
           LowHalf(w.z), HighHalf(w.z), LowHalf(w.w), HighHalf(w.w)}};
}

__device__ __forceinline__ float LoadOne(const float* from) { return *from; }
__device__ __forceinline__ float LoadOne(const bf16* from) {
  return LowHalf(*reinterpret_cast<const uint16_t*>(from));
}

__device__ __forceinline__ void StoreWide(const Pack<kWidePack>& pack,
                                          float* to) {
  const float* v = pack.v;
  reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ void StoreWide(const Pack<kWidePack>& pack,
                                          bf16* to) {
  const float* v = pack.v;
  *reinterpret_cast<uint4*>(to) =
      make_uint4(Bf16Pair(v[0], v[1]), Bf16Pair(v[2], v[3]),
                 Bf16Pair(v[4], v[5]), Bf16Pair(v[6], v[7]));
}

__device__ __forceinline__ void StoreOne(float value, float* to) {
  *to = value;
}
__device__ __forceinline__ void StoreOne(float value, bf16* to) {
  *reinterpret_cast<uint16_t*>(to) =
      static_cast<uint16_t>(Bf16Pair(value, 0.0f));
}

// T is float or bf16, kN one or kWidePack, of float also kShortPack.
template <int kN, typename T>
__device__ __forceinline__ Pack<kN> Load(const T* from) {
  if constexpr (kN == 1) {
    return {{LoadOne(from)}};
  } else if constexpr (kN == kShortPack) {
    const float4 a = *reinterpret_cast<const float4*>(from);
    return {{a.x, a.y, a.z, a.w}};
  } else {
    return LoadWide(from);
  }
}

template <int kN, typename T>
__device__ __forceinline__ void Store(const Pack<kN>& pack, T* to) {
  const float* v = pack.v;
  if constexpr (kN == 1) {
    StoreOne(v[0], to);
  } else if constexpr (kN == kShortPack) {
    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    StoreWide(pack, to);
  }
}

LORICA_HOST_DEVICE inline bool IsAligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// The first `count` elements of a pack, and `rest` in place of others: at once
// where all are there and begin at a multiple of 16 bytes, else one by one. Who
// sums them does so in the same order wherever they lie.
template <int kN, typename T>
__device__ __forceinline__ Pack<kN> LoadPart(const T* from, int64_t count,
                                             float rest = 0.0f) {
  if (count >= kN && IsAligned(from)) return Load<kN>(from);
  Pack<kN> pack;
  for (int i = 0; i < kN; ++i) {
    pack.v[i] = i < count ? LoadOne(from + i) : rest;
  }
  return pack;
}

// Stores the first `count` elements likewise.
template <int kN, typename T>
__device__ __forceinline__ void StorePart(const Pack<kN>& pack, T* to,
                                          int64_t count) {
  if (count >= kN && IsAligned(to)) return Store(pack, to);
  for (int i = 0; i < kN; ++i) {
    if (i < count) StoreOne(pack.v[i], to + i);
  }
}

// The pack as it will be read back after a store as T.
template <typename T, int kN>
__device__ __forceinline__ Pack<kN> Rounded(Pack<kN> pack) {
  if constexpr (sizeof(T) == sizeof(bf16)) {
    for (float& v : pack.v) v = LowHalf(Bf16Pair(v, 0.0f));
  }
  return pack;
}

// Whether the view's rows begin at multiples of 16 bytes. An absent view does
// not stand in the way.
LORICA_HOST_DEVICE inline bool HasAlignedRows(const View& v) {
  const size_t stride = static_cast<size_t>(v.row_stride) * SizeOf(v.dtype);
  return !v.present() ||
         (IsAligned(v.data) && (v.rows <= 1 || stride % 16 == 0));
}

// Whether they consist of wide packs as well.
LORICA_HOST_DEVICE inline bool IsPacked(const View& v) {
  return !v.present() || (HasAlignedRows(v) && v.cols % kWidePack == 0);
}

// Calls body.template operator()<T>() with the element type.
template <typename Body>
void DispatchFloat(DType dtype, const Body& body) {
  if (dtype == DType::kBF16) {
    body.template operator()<bf16>();
  } else {
    body.template operator()<float>();
  }
}

// Calls body.template operator()<kN>() with the widest pack that can be moved
// at once in all of the views.
template <typename Body>
void DispatchPack(std::initializer_list<View> views, const Body& body) {
  bool aligned = true;
  for (const View& v : views) aligned = aligned && HasAlignedRows(v);
  if (aligned) {
    body.template operator()<kWidePack>();
  } else {
    body.template operator()<1>();
  }
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_PACK_CUH_
