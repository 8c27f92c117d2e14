#include "launch/state/adapter_state.h"

#include <array>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/state/shard_writer.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The flat arrays that are saved, and what their slices are called.
struct FlatArray {
  const char* name;
  Tensor* (Adapter::*flat)();
};
constexpr std::array<FlatArray, 3> kArrays = {
    {{"value", &Adapter::values},
     {"first_moment", &Adapter::first_moments},
     {"second_moment", &Adapter::second_moments}}};

std::string NameOf(const Factor& factor, const FlatArray& array) {
  const char* kind = factor.kind == Factor::Kind::kA ? "lora_a" : "lora_b";
  return absl::StrCat(factor.module, ".", kind, ".", array.name);
}

absl::Status CheckTensors(const SavedState& state, const Adapter& adapter) {
  const std::map<std::string, Shape>& saved = state.manifest().tensors;
  const std::map<std::string, Shape> wanted = StateTensorsOf(adapter);
  const auto refuse = [&](const std::string& name, absl::string_view how) {
    return absl::InvalidArgumentError(
        absl::StrCat(state.path(), ": tensor ", name, " ", how));
  };
  for (const auto& [name, shape] : wanted) {
    const auto found = saved.find(name);
    if (found == saved.end()) return refuse(name, "is missing");
    if (!(found->second == shape)) {
      return refuse(name,
                    absl::StrCat("is ", found->second.ToString(),
                                 "; the adapter's is ", shape.ToString()));
    }
  }
  for (const auto& [name, shape] : saved) {
    if (wanted.count(name) == 0) {
      return refuse(name, "is none of the adapter's");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::map<std::string, Shape> StateTensorsOf(const Adapter& adapter) {
  std::map<std::string, Shape> tensors;
  for (const Factor& factor : adapter.factors()) {
    for (const FlatArray& array : kArrays) {
      tensors[NameOf(factor, array)] = factor.shape;
    }
  }
  return tensors;
}

Snapshot TakeSnapshot(Adapter* adapter, int rank) {
  Snapshot snapshot;
  for (const FlatArray& array : kArrays) {
    const auto begin = static_cast<int64_t>(snapshot.elements.size());
    const std::vector<float> flat = (adapter->*array.flat)()->ToHost<float>();
    snapshot.elements.insert(snapshot.elements.end(), flat.begin(), flat.end());
    for (const Factor& factor : adapter->factors()) {
      if (factor.elements == 0) continue;
      if (FirstHolder(factor.shard, rank) != rank) continue;
      snapshot.parts.push_back({.tensor = NameOf(factor, array),
                                .slice = factor.slice,
                                .offset = begin + factor.offset});
    }
  }
  return snapshot;
}

absl::StatusOr<Shard> WriteShard(const Snapshot& snapshot,
                                 const std::string& directory,
                                 const std::string& file) {
  std::vector<Piece> pieces;
  std::map<std::string, const float*> elements;
  for (const Snapshot::Part& part : snapshot.parts) {
    pieces.push_back({.tensor = part.tensor, .slice = part.slice});
    elements[pieces.back().NameInShard()] =
        snapshot.elements.data() + part.offset;
  }
  return WritePieces(directory, file, std::move(pieces),
                     [&](const Piece& piece,
                         absl::Span<float>) -> absl::StatusOr<const float*> {
                       return elements.at(piece.NameInShard());
                     });
}

absl::Status LoadState(SavedState* state, Adapter* adapter) {
  LORICA_RETURN_IF_ERROR(CheckTensors(*state, *adapter));
  std::vector<float> slice;
  for (const Factor& factor : adapter->factors()) {
    if (factor.elements == 0) continue;
    slice.resize(static_cast<size_t>(factor.elements));
    for (const FlatArray& array : kArrays) {
      LORICA_RETURN_IF_ERROR(state->Read(NameOf(factor, array), factor.slice,
                                         absl::MakeSpan(slice)));
      (adapter->*array.flat)()
          ->Cols({factor.offset, factor.offset + factor.elements})
          .CopyFrom(slice.data());
    }
  }
  adapter->Refresh();
  return absl::OkStatus();
}

}  // namespace lorica
