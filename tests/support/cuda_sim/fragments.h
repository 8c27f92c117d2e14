// What a warp holds around a matrix product, brought to the host: the wrappers
// of tensor cores in cuda_target.h, one call each.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_FRAGMENTS_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_FRAGMENTS_H_

#include <array>
#include <cstdint>

namespace lorica::cuda_sim {

inline constexpr int kLanes = 32;
template <typename T, int kN>
using PerLane = std::array<std::array<T, kN>, kLanes>;

// d of MmaBf16 with these operands and zero before it: elements in the order
// of each lane's registers, BF16 by their bits.
PerLane<float, 4> MultiplyFragments(const PerLane<uint16_t, 8>& a,
                                    const PerLane<uint16_t, 4>& b);

enum class Load : uint8_t { kPlain, kTransposed };

// What each lane receives of 32 rows of eight elements, row l at the address
// that lane l gives.
PerLane<uint16_t, 8> LoadFragments(const PerLane<uint16_t, 8>& rows, Load load);

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_FRAGMENTS_H_
