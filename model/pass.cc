#include "model/pass.h"

#include <algorithm>

#include "runtime/check.h"

namespace lorica {
namespace {

int64_t RoundUp(int64_t count) {
  return (count + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
}

// The tokens of some records, padded to the row multiple.
struct HostPass {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  std::vector<int32_t> targets;
  std::vector<int64_t> row_index;
  std::vector<int64_t> place;  // Index in the batch; -1: padding.
  std::vector<Segment> segments;
};

HostPass Collect(const TokenBatch& batch, RecordRange records) {
  CHECK_LT(records.begin, records.end);
  HostPass host;
  for (int64_t r = records.begin; r < records.end; ++r) {
    const Segment& record = batch.segments[static_cast<size_t>(r)];
    const auto first = static_cast<int64_t>(host.ids.size());
    host.segments.push_back({.first_query = first,
                             .num_queries = record.num_queries,
                             .first_key = first,
                             .num_keys = record.num_queries});
    for (int64_t i = 0; i < record.num_queries; ++i) {
      const auto token = static_cast<size_t>(record.first_query + i);
      host.ids.push_back(batch.tokens[token]);
      host.positions.push_back(batch.positions[token]);
      host.targets.push_back(batch.targets[token]);
      host.row_index.push_back(batch.row_index[token]);
      host.place.push_back(static_cast<int64_t>(token));
    }
  }
  const auto padded =
      static_cast<size_t>(RoundUp(static_cast<int64_t>(host.ids.size())));
  // Behind the last record's tokens, none of which attends to what follows: so
  // attention computes every row and has none to fill with zeros.
  const int64_t added = static_cast<int64_t>(padded) - std::ssize(host.ids);
  host.segments.back().num_queries += added;
  host.segments.back().num_keys += added;
  host.ids.resize(padded, 0);
  host.positions.resize(padded, 0);
  host.targets.resize(padded, -1);
  host.row_index.resize(padded, 0);
  host.place.resize(padded, -1);
  return host;
}

// The rows with a target, filled up with others to the row multiple, in order;
// empty if that is nearly all of them and a selection would not pay.
std::vector<int32_t> SelectTargets(const HostPass& host) {
  const auto rows = static_cast<int64_t>(host.ids.size());
  const int64_t with_target =
      std::count_if(host.targets.begin(), host.targets.end(),
                    [](int32_t target) { return target >= 0; });
  const int64_t wanted = RoundUp(std::max<int64_t>(with_target, 1));
  if (wanted * 8 > rows * 7) return {};
  int64_t fillers = wanted - with_target;
  std::vector<int32_t> selected;
  for (int64_t row = 0; row < rows; ++row) {
    const bool filler = host.targets[static_cast<size_t>(row)] < 0;
    if (filler && fillers-- <= 0) continue;
    selected.push_back(static_cast<int32_t>(row));
  }
  return selected;
}

template <typename T>
std::vector<T> Pick(const std::vector<T>& values,
                    const std::vector<int32_t>& rows) {
  std::vector<T> picked;
  picked.reserve(rows.size());
  for (const int32_t row : rows) {
    picked.push_back(values[static_cast<size_t>(row)]);
  }
  return picked;
}

template <typename T>
Tensor Upload(Device* device, const std::vector<T>& values) {
  return Tensor::FromHost<T>(device, {static_cast<int64_t>(values.size())},
                             values);
}

// The rows that go on, or none where all do. `host` keeps only those of
// targets, numbers and places.
std::vector<int32_t> Select(Selection selection, HostPass* host) {
  if (selection != Selection::kTargets) return {};
  std::vector<int32_t> selected = SelectTargets(*host);
  if (selected.empty()) return selected;
  host->targets = Pick(host->targets, selected);
  host->row_index = Pick(host->row_index, selected);
  host->place = Pick(host->place, selected);
  return selected;
}

template <typename T>
void Replace(const std::vector<T>& values, const Tensor& tensor) {
  CHECK_EQ(std::ssize(values), tensor.present() ? tensor.elements() : 0);
  if (!values.empty()) tensor.CopyFrom(values.data());
}

}  // namespace

std::vector<RecordRange> CutIntoPasses(const TokenBatch& batch,
                                       int64_t max_tokens) {
  const auto has_target = [&](const Segment& record) {
    const auto begin = batch.targets.begin() + record.first_query;
    return std::any_of(begin, begin + record.num_queries,
                       [](int32_t target) { return target >= 0; });
  };
  std::vector<RecordRange> passes;
  int64_t tokens = 0;
  for (int64_t r = 0; r < std::ssize(batch.segments); ++r) {
    const Segment& record = batch.segments[static_cast<size_t>(r)];
    if (!has_target(record)) continue;
    const bool joins = !passes.empty() && passes.back().end == r &&
                       tokens + record.num_queries <= max_tokens;
    if (joins) {
      ++passes.back().end;
      tokens += record.num_queries;
    } else {
      passes.push_back({r, r + 1});
      tokens = record.num_queries;
    }
  }
  return passes;
}

Pass MakePass(Device* device, const TokenBatch& batch, RecordRange records,
              Selection selection, std::vector<int64_t>* place) {
  HostPass host = Collect(batch, records);
  Pass pass = {.tokens = static_cast<int64_t>(host.ids.size()),
               .ids = Upload(device, host.ids),
               .positions = Upload(device, host.positions),
               .segments = host.segments};
  const std::vector<int32_t> selected = Select(selection, &host);
  if (!selected.empty()) pass.selected = Upload(device, selected);
  pass.targets = Upload(device, host.targets);
  pass.host_targets = host.targets;
  for (size_t i = 0; i < host.place.size(); ++i) {
    if (host.targets[i] < 0) host.place[i] = -1;
  }
  *place = std::move(host.place);
  return pass;
}

TrainingRows CollectTrainingRows(const TokenBatch& batch, RecordRange records,
                                 Selection selection, uint64_t seed) {
  HostPass host = Collect(batch, records);
  TrainingRows rows = {.segments = std::move(host.segments),
                       .row_index = host.row_index,
                       .seed = seed};
  rows.selected = Select(selection, &host);
  rows.ids = std::move(host.ids);
  rows.positions = std::move(host.positions);
  rows.targets = std::move(host.targets);
  rows.selected_row_index = std::move(host.row_index);
  return rows;
}

Pass MakeTrainingPass(Device* device, const TrainingRows& rows) {
  Pass pass = {.tokens = std::ssize(rows.ids),
               .ids = Upload(device, rows.ids),
               .positions = Upload(device, rows.positions),
               .segments = rows.segments,
               .targets = Upload(device, rows.targets),
               .host_targets = rows.targets,
               .row_index = Upload(device, rows.row_index),
               .selected_row_index = Upload(device, rows.selected_row_index),
               .seed = rows.seed};
  if (!rows.selected.empty()) pass.selected = Upload(device, rows.selected);
  return pass;
}

void Replace(const TrainingRows& rows, Pass* pass) {
  Replace(rows.ids, pass->ids);
  Replace(rows.positions, pass->positions);
  Replace(rows.selected, pass->selected);
  Replace(rows.targets, pass->targets);
  pass->host_targets = rows.targets;
  Replace(rows.row_index, pass->row_index);
  Replace(rows.selected_row_index, pass->selected_row_index);
  pass->segments = rows.segments;
  pass->seed = rows.seed;
}

}  // namespace lorica
