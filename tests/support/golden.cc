#include "tests/support/golden.h"

#include <cstring>

#include "runtime/check.h"
#include "runtime/files/safetensors.h"

namespace lorica {
namespace {

template <typename T>
std::vector<T> Elements(const TensorTable& table, const std::string& name) {
  const auto found = table.find(name);
  CHECK(found != table.end()) << name;
  const absl::string_view bytes = found->second.bytes;
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

std::vector<float> FloatsOf(const TensorTable& table, const std::string& name) {
  return Elements<float>(table, name);
}

Golden::Golden(const std::string& folder) : path_("tests/golden/" + folder) {
  auto expected = ReadSafetensors(path_ + "/expected.safetensors");
  CHECK(expected.ok()) << expected.status().message();
  expected_ = std::move(expected->tensors);
  auto settings = ReadJsonFile(path_ + "/expected.json");
  CHECK(settings.ok()) << settings.status().message();
  settings_ = *std::move(settings);
}

std::vector<float> Golden::expected(const std::string& name) const {
  return FloatsOf(expected_, name);
}

std::vector<TokenBatch> Golden::micro_batches(const std::string& file) const {
  const auto read = ReadSafetensors(path_ + "/" + file);
  CHECK(read.ok()) << read.status().message();
  const auto ints = [&](const std::string& name) {
    return Elements<int32_t>(read->tensors, name);
  };
  const std::vector<int32_t> tokens = ints("tokens");
  const std::vector<int32_t> targets = ints("targets");
  const std::vector<int32_t> lengths = ints("record_lengths");
  const std::vector<int32_t> row_records = ints("row_records");
  std::vector<TokenBatch> batches;
  size_t token = 0;
  size_t record = 0;
  size_t row = 0;
  for (const int32_t rows : ints("micro_batch_rows")) {
    TokenBatch& batch = batches.emplace_back();
    int32_t records = 0;
    for (int32_t r = 0; r < rows; ++r) records += row_records[row++];
    for (int32_t r = 0; r < records; ++r) {
      const int32_t length = lengths[record++];
      const auto first = static_cast<int64_t>(batch.tokens.size());
      batch.segments.push_back({first, length, first, length});
      for (int32_t i = 0; i < length; ++i, ++token) {
        batch.tokens.push_back(tokens[token]);
        batch.positions.push_back(i);
        batch.targets.push_back(targets[token] < 0 ? -1 : targets[token]);
        batch.row_index.push_back(static_cast<int64_t>(token));
        batch.num_targets += targets[token] < 0 ? 0 : 1;
      }
    }
  }
  return batches;
}

}  // namespace lorica
