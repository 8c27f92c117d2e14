// A frozen linear layer with adapters, for the cases of lora_forward and
// lora_backward: its numbers, and its operands on a device.
#ifndef LORICA_TESTS_SUPPORT_LORA_LAYER_H_
#define LORICA_TESTS_SUPPORT_LORA_LAYER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {

inline constexpr double kScale =
    0.5;  // alpha / rank: b holds it, db is due it.

// How the operands lie: each by itself; parts side by side; or, besides, the
// adapter in the weights' border, xa beside x and dxa beside dy.
enum class Place : uint8_t { kApart, kStacked, kBordered };

// A frozen layer of several parts, some with an adapter.
struct LayerCase {
  std::string name;
  int64_t tokens;
  int64_t inputs;
  std::vector<int64_t> outputs;  // Of each part.
  std::vector<int64_t> ranks;    // Of each part; zero where frozen.
  DType dtype;
  int64_t spare = 0;     // Ranks of zeros that the device has behind these.
  bool dropout = false;  // The adapters see another input.
  bool input_grad = true;
  bool biased = false;
  Place place = Place::kApart;
};

struct HostLayer {
  HostMatrix x;
  HostMatrix adapter_x;
  HostMatrix a;  // Of no rows where nothing is adapted. No spare ranks.
  std::vector<HostMatrix> weight;
  std::vector<HostMatrix> bias;  // [1, O]
  std::vector<HostMatrix> b;     // Of no columns where frozen.
  std::vector<HostMatrix> dy;
  std::vector<Range> ranks;  // Columns of xa of each part.
};

HostLayer LayerOf(const LayerCase& c);
// xa as the forward pass leaves it: rounded to the compute type. Spare ranks
// are unreadable.
HostMatrix RoundedXa(const LayerCase& c, const HostLayer& layer);

struct DeviceLayer {
  Tensor x;
  Tensor adapter_x;
  Tensor a;
  Tensor xa;                 // Room.
  Tensor dxa;                // Room.
  std::vector<Tensor> held;  // What the parts' views point to.
  std::vector<LinearPart> parts;
};

// Everything but y and db of the parts.
DeviceLayer Upload(const LayerCase& c, const HostLayer& layer, Device* device);
// Room for y, or dy, of each part.
std::vector<Tensor> OutputRoom(const LayerCase& c, Device* device);
// dy of each part; where it is bordered, dxa beside the last.
std::vector<Tensor> UploadGrads(const LayerCase& c, const HostLayer& layer,
                                Device* device, Tensor* dxa);

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_LORA_LAYER_H_
