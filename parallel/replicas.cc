#include "parallel/replicas.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/host_image.h"
#include "runtime/check.h"

namespace lorica {
namespace {

std::string HashOf(absl::Span<const Tensor> tensors) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(
      XXH3_createState(), &XXH3_freeState);
  CHECK(state != nullptr);
  XXH3_128bits_reset(state.get());
  for (const Tensor& tensor : tensors) {
    const HostImage image(tensor, HostImage::Access::kRead);
    XXH3_128bits_update(
        state.get(), image.data(),
        static_cast<size_t>(tensor.elements()) * SizeOf(tensor.dtype()));
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  return std::string(reinterpret_cast<const char*>(canonical.digest),
                     sizeof(canonical.digest));
}

}  // namespace

absl::Status VerifyReplicas(absl::string_view what,
                            absl::Span<const Tensor> tensors,
                            Communicator& group) {
  if (group.size() == 1) return absl::OkStatus();
  const std::vector<std::string> hashes =
      group.AllGatherBytes(HashOf(tensors), Purpose::kControl);
  const std::string& common =
      *std::max_element(hashes.begin(), hashes.end(),
                        [&](const std::string& a, const std::string& b) {
                          return std::count(hashes.begin(), hashes.end(), a) <
                                 std::count(hashes.begin(), hashes.end(), b);
                        });
  std::vector<int> odd;
  for (int peer = 0; peer < group.size(); ++peer) {
    if (hashes[peer] != common) odd.push_back(group.world_rank(peer));
  }
  if (odd.empty()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      what, " is not the same on all ", group.size(),
      " ranks that hold it: rank ", absl::StrJoin(odd, " "), " differs"));
}

}  // namespace lorica
