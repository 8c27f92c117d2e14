// Random numbers that are a function of their place: element `index` of the
// field (seed, stream) is the same on every rank, device and mesh.
//
// Philox4x32-10: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3,
// SC 2011.
#ifndef LORICA_RUNTIME_RANDOM_H_
#define LORICA_RUNTIME_RANDOM_H_

#include <cstdint>

#ifdef __CUDACC__
#define LORICA_HOST_DEVICE __host__ __device__
#else
#define LORICA_HOST_DEVICE
#endif

namespace lorica {

struct PhiloxBlock {
  uint32_t words[4];
};

// The 128-bit counter is (index, stream), low words first; the key is seed.
LORICA_HOST_DEVICE constexpr PhiloxBlock Philox(uint64_t seed, uint64_t stream,
                                                uint64_t index) {
  uint32_t k0 = static_cast<uint32_t>(seed);
  uint32_t k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = static_cast<uint32_t>(index);
  uint32_t c1 = static_cast<uint32_t>(index >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream);
  uint32_t c3 = static_cast<uint32_t>(stream >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A named field of uniform 32-bit words.
struct RandomField {
  uint64_t seed = 0;
  uint64_t stream = 0;

  // Word of element `index`: word index % 4 of block index / 4.
  LORICA_HOST_DEVICE constexpr uint32_t Word(uint64_t index) const {
    return Philox(seed, stream, index / 4).words[index % 4];
  }
  // Uniform in [0, 1), 24 bits.
  LORICA_HOST_DEVICE constexpr float Uniform(uint64_t index) const {
    return static_cast<float>(Word(index) >> 8) * 0x1p-24f;
  }
};

// The stream of a name: FNV-1a, 64 bits. `salt` separates uses of one name,
// such as the steps of a dropout mask.
constexpr uint64_t StreamOf(const char* name, uint64_t salt = 0) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (; *name != '\0'; ++name) {
    hash = (hash ^ static_cast<uint8_t>(*name)) * 0x100000001b3u;
  }
  for (int byte = 0; byte < 8; ++byte) {
    hash = (hash ^ ((salt >> (8 * byte)) & 0xffu)) * 0x100000001b3u;
  }
  return hash;
}

}  // namespace lorica

#endif  // LORICA_RUNTIME_RANDOM_H_
