#include "launch/state/manifest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/files/checksum.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kFormat[] = "lorica-state";
constexpr int64_t kVersion = 1;
// The text before and after the checksum of the rest.
constexpr char kBefore[] = "{\"checksum\":\"";
constexpr char kAfter[] = "\",";
constexpr size_t kDigits = 32;

Json ToJson(const Range& range) {
  return Json::array({range.begin, range.end});
}

Range RangeFrom(const Json& json) {
  return {json.at(0).get<int64_t>(), json.at(1).get<int64_t>()};
}

Json ToJson(const TrainingPosition& position) {
  return {{"step", position.step},
          {"skipped_batches", position.skipped_batches},
          {"anomalies", position.anomalies},
          {"recent_losses", position.recent_losses},
          {"recent_grad_norms", position.recent_grad_norms}};
}

TrainingPosition PositionFrom(const Json& json) {
  return {.step = json.at("step").get<int64_t>(),
          .skipped_batches = json.at("skipped_batches").get<int64_t>(),
          .anomalies = json.at("anomalies").get<int64_t>(),
          .recent_losses = json.at("recent_losses").get<std::vector<double>>(),
          .recent_grad_norms =
              json.at("recent_grad_norms").get<std::vector<double>>()};
}

Shard ShardFrom(const Json& json) {
  Shard shard = {.file = json.at("file").get<std::string>(),
                 .bytes = json.at("bytes").get<int64_t>(),
                 .header_checksum = json.at("header").get<std::string>()};
  for (const Json& piece : json.at("pieces")) {
    shard.pieces.push_back(
        {.tensor = piece.at("tensor").get<std::string>(),
         .slice = {RangeFrom(piece.at("rows")), RangeFrom(piece.at("cols"))},
         .checksum = piece.at("checksum").get<std::string>()});
  }
  return shard;
}

Manifest ManifestFrom(const Json& json) {
  const Json& mesh = json.at("mesh");
  Manifest manifest = {
      .position = PositionFrom(json.at("position")),
      .mesh = {.data = mesh.at("data").get<int>(),
               .tensor = mesh.at("tensor").get<int>(),
               .tensor_sequence = mesh.at("tensor_sequence").get<bool>()},
      .config = json.at("config").get<std::map<std::string, std::string>>(),
      .data_checksum = json.at("data_checksum").get<std::string>()};
  for (const auto& [name, shape] : json.at("tensors").items()) {
    manifest.tensors[name] = {shape.at(0).get<int64_t>(),
                              shape.at(1).get<int64_t>()};
  }
  for (const Json& shard : json.at("shards")) {
    manifest.shards.push_back(ShardFrom(shard));
  }
  for (const Json& file : json.at("files")) {
    manifest.files.push_back(
        {.file = file.at("file").get<std::string>(),
         .bytes = file.at("bytes").get<int64_t>(),
         .checksum = file.at("checksum").get<std::string>()});
  }
  return manifest;
}

bool Overlap(const Range& a, const Range& b) {
  return std::max(a.begin, b.begin) < std::min(a.end, b.end);
}

bool Within(const Range& range, int64_t size) {
  return 0 <= range.begin && range.begin < range.end && range.end <= size;
}

absl::Status CheckPieces(const std::string& name, const Shape& shape,
                         const std::vector<const Piece*>& pieces) {
  int64_t covered = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Slice& slice = pieces[i]->slice;
    if (!Within(slice.rows, shape[0]) || !Within(slice.cols, shape[1])) {
      return absl::InvalidArgumentError(
          absl::StrCat(pieces[i]->NameInShard(), " is outside of the tensor, ",
                       shape.ToString()));
    }
    covered += slice.rows.size() * slice.cols.size();
    for (size_t j = 0; j < i; ++j) {
      if (Overlap(slice.rows, pieces[j]->slice.rows) &&
          Overlap(slice.cols, pieces[j]->slice.cols)) {
        return absl::InvalidArgumentError(absl::StrCat(
            pieces[i]->NameInShard(), " overlaps ", pieces[j]->NameInShard()));
      }
    }
  }
  if (covered == shape.elements()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the shards hold ", covered, " elements of ", name, " ",
                   shape.ToString(), ", not all"));
}

// A name beside the manifest, not a way to other places.
absl::Status CheckFileName(const std::string& name) {
  if (!name.empty() && name[0] != '.' && !absl::StrContains(name, '/')) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no file name"));
}

absl::Status Check(const Manifest& manifest) {
  std::map<std::string, std::vector<const Piece*>> pieces;
  for (const Shard& shard : manifest.shards) {
    LORICA_RETURN_IF_ERROR(CheckFileName(shard.file));
    for (const Piece& piece : shard.pieces) {
      if (manifest.tensors.count(piece.tensor) == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(shard.file, " holds ", piece.tensor,
                         ", which is not among the tensors"));
      }
      pieces[piece.tensor].push_back(&piece);
    }
  }
  for (const FileBeside& file : manifest.files) {
    LORICA_RETURN_IF_ERROR(CheckFileName(file.file));
  }
  for (const auto& [name, shape] : manifest.tensors) {
    LORICA_RETURN_IF_ERROR(CheckPieces(name, shape, pieces[name]));
  }
  const TrainingPosition& position = manifest.position;
  if (position.step < 0 || position.skipped_batches < 0) {
    return absl::InvalidArgumentError("the position is negative");
  }
  return absl::OkStatus();
}

absl::Status Damaged(const std::string& path) {
  return absl::DataLossError(absl::StrCat(
      path, ": damaged, or not the manifest of a save: its checksum is wrong"));
}

}  // namespace

std::string Piece::NameInShard() const {
  return absl::StrCat(tensor, "[", slice.rows.begin, ":", slice.rows.end, ",",
                      slice.cols.begin, ":", slice.cols.end, "]");
}

std::string ManifestPath(const std::string& save) {
  return absl::StrCat(save, "/", kStateFolder, "/manifest.json");
}

std::string ShardName(int rank, int ranks) {
  return absl::StrCat("shard-", rank, "-of-", ranks, ".safetensors");
}

Json ToJson(const Shard& shard) {
  Json pieces = Json::array();
  for (const Piece& piece : shard.pieces) {
    pieces.push_back({{"tensor", piece.tensor},
                      {"rows", ToJson(piece.slice.rows)},
                      {"cols", ToJson(piece.slice.cols)},
                      {"checksum", piece.checksum}});
  }
  return {{"file", shard.file},
          {"bytes", shard.bytes},
          {"header", shard.header_checksum},
          {"pieces", pieces}};
}

absl::StatusOr<Shard> ShardFromText(absl::string_view text) {
  LORICA_ASSIGN_OR_RETURN(const Json json, ParseJson(text, "shard"));
  try {
    return ShardFrom(json);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

std::string ToText(const Manifest& manifest) {
  Json json = {{"format", kFormat},
               {"version", kVersion},
               {"position", ToJson(manifest.position)},
               {"mesh",
                {{"data", manifest.mesh.data},
                 {"tensor", manifest.mesh.tensor},
                 {"tensor_sequence", manifest.mesh.tensor_sequence}}},
               {"config", manifest.config},
               {"data_checksum", manifest.data_checksum},
               {"tensors", Json::object()},
               {"shards", Json::array()},
               {"files", Json::array()}};
  for (const auto& [name, shape] : manifest.tensors) {
    json["tensors"][name] = Json::array({shape[0], shape[1]});
  }
  for (const Shard& shard : manifest.shards) {
    json["shards"].push_back(ToJson(shard));
  }
  for (const FileBeside& file : manifest.files) {
    json["files"].push_back({{"file", file.file},
                             {"bytes", file.bytes},
                             {"checksum", file.checksum}});
  }
  // Paths may hold bytes that are not UTF-8: they are replaced.
  const std::string text =
      json.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string rest = absl::StrCat(kAfter, text.substr(1), "\n");
  return absl::StrCat(kBefore, Checksum(rest), rest);
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view text,
                                       const std::string& path) {
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, kBefore) || rest.size() < kDigits ||
      rest.substr(0, kDigits) != Checksum(rest.substr(kDigits))) {
    return Damaged(path);
  }
  LORICA_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path));
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", why));
  };
  try {
    const auto version = json.at("version").get<int64_t>();
    if (json.at("format").get<std::string>() != kFormat) {
      return refuse("another program's format");
    }
    if (version != kVersion) {
      return refuse(absl::StrCat("version ", version, " of the format; this ",
                                 "program reads version ", kVersion));
    }
    Manifest manifest = ManifestFrom(json);
    const absl::Status status = Check(manifest);
    if (!status.ok()) return refuse(status.message());
    return manifest;
  } catch (const Json::exception& error) {
    return refuse(error.what());
  }
}

}  // namespace lorica
