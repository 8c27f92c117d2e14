#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "runtime/cpu/attention/plan.h"
#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"

namespace lorica::cpu {
namespace {

// A task takes some key tiles of one segment and key/value head over all the
// queries that see them, head after head of the group. It owns dk and dv of
// its keys. Its term of dq is the whole where the task has all the segment's
// keys, else it is kept and summed over the tasks in order.
struct Task {
  int64_t segment;
  int64_t kv_head;
  Range tiles;
  int64_t cost;         // Score tiles.
  int64_t dq_floats;    // Where its dq of the group's first head is kept, or
                        // kWhole.
  int64_t first_block;  // Of queries that see its keys.
  int64_t blocks;       // From there to the segment's end.
};
constexpr int64_t kWhole = -1;

// Tasks a thread should have at least, so that the last ones to end are short.
constexpr int64_t kTasksPerThread = 6;

constexpr std::array<float, kTile> Ones() {
  std::array<float, kTile> ones{};
  for (float& one : ones) one = 1.0f;
  return ones;
}
constexpr std::array<float, kTile> kOnes = Ones();

int64_t CostOf(const Segment& segment, Range tiles) {
  const int64_t blocks = CountTiles(segment.num_queries);
  int64_t cost = 0;
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    cost += blocks - FirstBlock(segment, tile);
  }
  return cost;
}

// Cuts the segment's key tiles into ranges of about equal cost.
std::vector<Range> CutTiles(const Segment& segment, int64_t largest_cost) {
  const int64_t tiles = CountTiles(segment.num_keys);
  const int64_t blocks = CountTiles(segment.num_queries);
  const int64_t cost = CostOf(segment, {0, tiles});
  const int64_t parts =
      std::max<int64_t>(1, (cost + largest_cost - 1) / largest_cost);
  std::vector<Range> ranges;
  int64_t begin = 0;
  int64_t done = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    done += blocks - FirstBlock(segment, tile);
    const int64_t due = static_cast<int64_t>(ranges.size()) + 1;
    if (done * parts >= cost * due || tile + 1 == tiles) {
      ranges.push_back({begin, tile + 1});
      begin = tile + 1;
    }
  }
  return ranges;
}

struct TaskList {
  std::vector<Task> tasks;
  int64_t dq_floats = 0;  // Of all the tasks that keep theirs.
};

TaskList PlanTasks(const AttentionArgs& args, const HeadShape& shape,
                   int threads) {
  int64_t total = 0;
  for (const Segment& s : args.segments) {
    total += CostOf(s, {0, CountTiles(s.num_keys)}) * shape.kv_heads;
  }
  const int64_t wanted = threads == 1 ? 1 : threads * kTasksPerThread;
  const int64_t largest = std::max<int64_t>(
      1, threads == 1 ? total : (total + wanted - 1) / wanted);
  TaskList list;
  for (int64_t s = 0; s < args.segments.size; ++s) {
    const Segment& segment = args.segments[s];
    if (segment.num_keys == 0) continue;
    const std::vector<Range> ranges = CutTiles(segment, largest);
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      for (const Range& tiles : ranges) {
        const int64_t first = FirstBlock(segment, tiles.begin);
        Task task = {.segment = s,
                     .kv_head = kv_head,
                     .tiles = tiles,
                     .cost = CostOf(segment, tiles),
                     .dq_floats = kWhole,
                     .first_block = first,
                     .blocks = CountTiles(segment.num_queries) - first};
        if (ranges.size() > 1) {
          task.dq_floats = list.dq_floats;
          list.dq_floats += shape.group * task.blocks * kTile * shape.padded;
        }
        list.tasks.push_back(task);
      }
    }
  }
  return list;
}

// Scratch of one thread, for tasks of so many query blocks and key tiles.
struct TaskScratch {
  TaskScratch(char* data, const TileKernels& kernels, int64_t padded,
              int64_t blocks, int64_t tiles) {
    const int64_t tile_bytes = kTile * padded * kernels.operand_bytes;
    Carver carve(data);
    q = carve.Take(blocks * tile_bytes);
    dout = carve.Take(blocks * tile_bytes);
    q_rows = carve.Take(blocks * tile_bytes);
    dout_rows = carve.Take(blocks * tile_bytes);
    k = carve.Take(tiles * tile_bytes);
    v = carve.Take(tiles * tile_bytes);
    k_transposed = carve.Take(tiles * tile_bytes);
    weights = carve.Take(kTile * kTile * kernels.operand_bytes);
    dscores = carve.Take(kTile * kTile * kernels.operand_bytes);
    dscores_right = carve.Take(kTile * kTile * kernels.operand_bytes);
    lse = carve.TakeFloats(blocks * kTile);
    dot = carve.TakeFloats(blocks * kTile);
    dq = carve.TakeFloats(blocks * kTile * padded);
    dk = carve.TakeFloats(tiles * kTile * padded);
    dv = carve.TakeFloats(tiles * kTile * padded);
    scores = carve.TakeFloats(kTile * kTile);
    dweights = carve.TakeFloats(kTile * kTile);
    bytes = carve.taken();
  }

  char* q;
  char* dout;
  char* q_rows;
  char* dout_rows;
  char* k;
  char* v;
  char* k_transposed;
  char* weights;
  char* dscores;
  char* dscores_right;
  float* lse;
  float* dot;
  float* dq;
  float* dk;
  float* dv;
  float* scores;
  float* dweights;
  int64_t bytes;
};

class BackwardPass {
 public:
  BackwardPass(Queue* queue, const AttentionBackwardArgs& args)
      : queue_(queue),
        args_(args),
        shape_(args.forward),
        kernels_(KernelsFor(*queue, args.forward)),
        list_(PlanTasks(args.forward, shape_, queue->threads)),
        tile_bytes_(kTile * shape_.padded * kernels_.operand_bytes),
        tile_floats_(kTile * shape_.padded) {}

  void Run() {
    int64_t blocks = 0;
    int64_t tiles = 0;
    std::vector<const Task*> order;
    for (const Task& task : list_.tasks) {
      blocks = std::max(blocks, task.blocks);
      tiles = std::max(tiles, task.tiles.size());
      order.push_back(&task);
    }
    std::stable_sort(
        order.begin(), order.end(),
        [](const Task* a, const Task* b) { return a->cost > b->cost; });
    kept_dq_ =
        queue_->ScratchFor<float>(ScratchUse::kOperands, list_.dq_floats);
    const int64_t bytes =
        TaskScratch(nullptr, kernels_, shape_.padded, blocks, tiles).bytes;
    char* scratch = queue_->ScratchFor<char>(ScratchUse::kAttention,
                                             queue_->threads * bytes);
#pragma omp parallel num_threads(queue_->threads)
    {
      const TaskScratch mine(scratch + omp_get_thread_num() * bytes, kernels_,
                             shape_.padded, blocks, tiles);
#pragma omp for schedule(dynamic, 1)
      for (size_t i = 0; i < order.size(); ++i) RunTask(*order[i], mine);
    }
    SumKeptDq();
  }

 private:
  void RunTask(const Task& task, const TaskScratch& scratch) const {
    PackKeys(task, scratch);
    const int64_t floats = task.tiles.size() * tile_floats_;
    std::fill_n(scratch.dk, floats, 0.0f);
    std::fill_n(scratch.dv, floats, 0.0f);
    for (int64_t i = 0; i < shape_.group; ++i) {
      const int64_t head = task.kv_head * shape_.group + i;
      PackQueries(task, head, scratch);
      float* dq = task.dq_floats == kWhole ? scratch.dq
                                           : kept_dq_ + task.dq_floats +
                                                 i * task.blocks * tile_floats_;
      std::fill_n(dq, task.blocks * tile_floats_, 0.0f);
      for (int64_t tile = task.tiles.begin; tile < task.tiles.end; ++tile) {
        RunKeyTile(task, tile, scratch, dq);
      }
      if (task.dq_floats == kWhole) StoreDq(task, head, dq);
    }
    StoreKeys(task, scratch);
  }

  void PackKeys(const Task& task, const TaskScratch& scratch) const {
    for (int64_t i = 0; i < task.tiles.size(); ++i) {
      const RowBlock rows =
          KeyTile(args_.forward, task.segment, task.tiles.begin + i);
      const TileRows k = RowsOf(args_.forward.k, rows, task.kv_head, shape_);
      const TileRows v = RowsOf(args_.forward.v, rows, task.kv_head, shape_);
      const int64_t at = i * tile_bytes_;
      kernels_.pack_left(k, scratch.k + at);
      kernels_.pack_left(v, scratch.v + at);
      kernels_.pack_left_transposed(k, scratch.k_transposed + at);
    }
  }

  // Rows past the last query have zero dout, so whatever weights they get,
  // they add nothing.
  void PackQueries(const Task& task, int64_t head,
                   const TaskScratch& scratch) const {
    const AttentionArgs& forward = args_.forward;
    const float* lse = forward.lse.Row<const float>(head);
    for (int64_t i = 0; i < task.blocks; ++i) {
      const RowBlock rows =
          QueryBlock(forward, task.segment, task.first_block + i);
      const TileRows q = RowsOf(forward.q, rows, head, shape_);
      const TileRows dout = RowsOf(args_.dout, rows, head, shape_);
      const int64_t at = i * tile_bytes_;
      kernels_.pack_right_transposed(q, scratch.q + at);
      kernels_.pack_right_transposed(dout, scratch.dout + at);
      kernels_.pack_right(q, scratch.q_rows + at);
      kernels_.pack_right(dout, scratch.dout_rows + at);
      float* block_lse = scratch.lse + i * kTile;
      float* block_dot = scratch.dot + i * kTile;
      std::fill_n(block_lse, kTile, 0.0f);
      std::fill_n(block_dot, kTile, 0.0f);
      for (int64_t row = 0; row < rows.rows; ++row) {
        block_lse[row] = lse[rows.first_row + row] * kLog2E;
      }
      kernels_.row_dots(RowsOf(forward.out, rows, head, shape_), dout,
                        block_dot);
    }
  }

  void RunKeyTile(const Task& task, int64_t tile, const TaskScratch& scratch,
                  float* dq) const {
    const Segment& segment = args_.forward.segments[task.segment];
    const int64_t key = tile - task.tiles.begin;
    const int64_t first = FirstBlock(segment, tile) - task.first_block;
    for (int64_t block = first; block < task.blocks; ++block) {
      const int64_t q_at = block * tile_bytes_;
      kernels_.backward(
          {.k = scratch.k + key * tile_bytes_,
           .v = scratch.v + key * tile_bytes_,
           .k_transposed = scratch.k_transposed + key * tile_bytes_,
           .q = scratch.q + q_at,
           .dout = scratch.dout + q_at,
           .q_rows = scratch.q_rows + q_at,
           .dout_rows = scratch.dout_rows + q_at,
           .lse = scratch.lse + block * kTile,
           .dot = scratch.dot + block * kTile,
           .extent = ExtentOf(segment, task.first_block + block, tile),
           .padded = shape_.padded,
           .scale = args_.forward.scale,
           .dq = dq + block * tile_floats_,
           .dk = scratch.dk + key * tile_floats_,
           .dv = scratch.dv + key * tile_floats_,
           .scores = scratch.scores,
           .dweights = scratch.dweights,
           .weights = scratch.weights,
           .dscores = scratch.dscores,
           .dscores_right = scratch.dscores_right});
    }
  }

  void StoreDq(const Task& task, int64_t head, const float* dq) const {
    for (int64_t i = 0; i < task.blocks; ++i) {
      const RowBlock rows =
          QueryBlock(args_.forward, task.segment, task.first_block + i);
      kernels_.store_transposed(dq + i * tile_floats_, kOnes.data(),
                                RowsOf(args_.dq, rows, head, shape_));
    }
  }

  void StoreKeys(const Task& task, const TaskScratch& scratch) const {
    for (int64_t i = 0; i < task.tiles.size(); ++i) {
      const RowBlock rows =
          KeyTile(args_.forward, task.segment, task.tiles.begin + i);
      kernels_.store(scratch.dk + i * tile_floats_,
                     RowsOf(args_.dk, rows, task.kv_head, shape_));
      kernels_.store(scratch.dv + i * tile_floats_,
                     RowsOf(args_.dv, rows, task.kv_head, shape_));
    }
  }

  // Sums the kept terms of dq over a segment's tasks, key range after key
  // range. The first of them starts at query block zero and is the sum.
  void SumKeptDq() const {
    const auto count = static_cast<int64_t>(list_.tasks.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(queue_->threads)
    for (int64_t t = 0; t < count * shape_.group; ++t) {
      const Task& task = list_.tasks[static_cast<size_t>(t / shape_.group)];
      if (task.dq_floats == kWhole || task.tiles.begin != 0) continue;
      const int64_t i = t % shape_.group;
      float* sum = kept_dq_ + task.dq_floats + i * task.blocks * tile_floats_;
      for (int64_t other = t / shape_.group + 1; other < count; ++other) {
        const Task& term = list_.tasks[static_cast<size_t>(other)];
        if (term.tiles.begin == 0) break;
        const float* from =
            kept_dq_ + term.dq_floats + i * term.blocks * tile_floats_;
        float* to = sum + term.first_block * tile_floats_;
        for (int64_t f = 0; f < term.blocks * tile_floats_; ++f) {
          to[f] += from[f];
        }
      }
      StoreDq(task, task.kv_head * shape_.group + i, sum);
    }
  }

  Queue* queue_;
  const AttentionBackwardArgs& args_;
  HeadShape shape_;
  const TileKernels& kernels_;
  TaskList list_;
  int64_t tile_bytes_;
  int64_t tile_floats_;
  float* kept_dq_ = nullptr;
};

}  // namespace

void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args) {
  const ArrayView<Segment>& segments = args.forward.segments;
  ZeroUncovered(queue, segments, Side::kQueries, args.dq);
  ZeroUncovered(queue, segments, Side::kKeys, args.dk);
  ZeroUncovered(queue, segments, Side::kKeys, args.dv);
  BackwardPass(queue, args).Run();
}

}  // namespace lorica::cpu
