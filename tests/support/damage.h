// A file broken in every way that bytes can break.
#ifndef LORICA_TESTS_SUPPORT_DAMAGE_H_
#define LORICA_TESTS_SUPPORT_DAMAGE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

namespace lorica {

// Calls `use` with `bytes` cut at every length, then `rounds` times with a few
// bytes within the first `span` overwritten, flipped, dropped or doubled. The
// damage is the same in every run.
inline void ForEachDamage(const std::string& bytes, size_t span, int rounds,
                          const std::function<void(const std::string&)>& use) {
  for (size_t length = 0; length < bytes.size(); ++length) {
    use(bytes.substr(0, length));
  }
  std::mt19937 random(1);
  const auto below = [&random](size_t n) { return random() % n; };
  constexpr uint8_t kEdges[] = {0x00, 0x01, 0x20, 0x7f, 0x80, 0xff};
  for (int round = 0; round < rounds; ++round) {
    std::string damaged = bytes;
    for (size_t count = 1 + below(3); count > 0; --count) {
      const size_t place = below(span);
      const uint8_t old = static_cast<uint8_t>(damaged[place]);
      switch (below(4)) {
        case 0:
          damaged[place] = static_cast<char>(old ^ (1u << below(8)));
          break;
        case 1:
          damaged[place] = static_cast<char>(kEdges[below(6)]);
          break;
        case 2:
          damaged.erase(place, 1);
          break;
        default:
          damaged.insert(place, 1, static_cast<char>(old));
      }
    }
    use(damaged);
  }
}

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_DAMAGE_H_
