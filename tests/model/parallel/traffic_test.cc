// What an adapter costs on the wire: nothing in forward and backward, one sum
// a step.
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/pass.h"
#include "tests/model/parallel/split_run.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

const std::vector<std::string> kTargets = {"q_proj",    "k_proj",    "v_proj",
                                           "o_proj",    "gate_proj", "up_proj",
                                           "down_proj", "all-linear"};

// Between the layers, in one micro-batch, on one rank.
struct Count {
  Traffic forward;
  Traffic backward;
  Traffic loss;
  friend bool operator==(const Count&, const Count&) = default;
};

std::ostream& operator<<(std::ostream& out, const Count& count) {
  return out << "forward " << count.forward << ", backward " << count.backward
             << ", loss " << count.loss;
}

// Which model runs, and how far its backward goes.
enum class Model : uint8_t {
  kFrozen,  // No adapter, down to the embedding.
  kAdaptedToEmbedding,
  kAdapted,  // As it trains: down to the lowest adapter.
};

struct Case {
  MeshConfig mesh;
  Model model = Model::kFrozen;
  std::string target = "all-linear";
  Recompute recompute = Recompute::kCheap;
};

// All ranks count the same; all rows go on, so that the split of tokens does
// not change what is sent.
Count CountPass(const Case& c) {
  std::vector<Count> counts(static_cast<size_t>(c.mesh.tensor));
  RunRanks(c.mesh.tensor, [&](std::unique_ptr<Communicator> world) {
    const size_t rank = static_cast<size_t>(world->rank());
    const auto session = Session::Over(std::move(world), Placement{}, c.mesh,
                                       {.allocation = Allocation::kDirect});
    ASSERT_TRUE(session.ok()) << session.status();
    const SplitOptions options = {.mesh = c.mesh, .targets = {c.target}};
    const SplitModelRun run(options, **session);
    const TokenBatch row = RowOf(0);
    const Pass pass =
        MakeTrainingPass((*session)->device(), row, {0, 3}, Selection::kAll, 1);
    Communicator& group = (*session)->mesh().tensor();
    group.ResetTraffic();
    Tensor dx;
    if (c.model == Model::kAdapted) {
      run.gpt->Train(pass, c.recompute, 1.0f, *run.adapter);
    } else {
      run.gpt->TrainToEmbedding(
          pass, c.recompute, 1.0f,
          c.model == Model::kFrozen ? nullptr : run.adapter.get(), &dx);
    }
    counts[rank] = {group.traffic(Purpose::kActivation),
                    group.traffic(Purpose::kActivationGrad),
                    group.traffic(Purpose::kLoss)};
  });
  for (const Count& count : counts) EXPECT_EQ(count, counts[0]);
  return counts[0];
}

constexpr MeshConfig kSplits[] = {{.tensor = 2},
                                  {.tensor = 2, .tensor_sequence = true}};

// Recomputing a block gathers its inputs again where tokens are split.
bool GathersAgain(const Case& c) {
  return c.mesh.tensor_sequence && c.recompute == Recompute::kBlock;
}

TEST(TrafficTest, AnAdapterAddsNoCollectiveAndNoByteToAMicroBatch) {
  for (const MeshConfig& mesh : kSplits) {
    for (const Recompute recompute :
         {Recompute::kNone, Recompute::kCheap, Recompute::kBlock}) {
      Case c = {.mesh = mesh, .recompute = recompute};
      const Count frozen = CountPass(c);
      for (const std::string& target : kTargets) {
        SCOPED_TRACE(NameOf(mesh) + " " + target);
        c.target = target;
        c.model = Model::kAdaptedToEmbedding;
        EXPECT_EQ(CountPass(c), frozen);
        // Below the lowest adapter nothing is computed, so less is sent.
        c.model = Model::kAdapted;
        const Count trained = CountPass(c);
        if (!GathersAgain(c)) {
          EXPECT_EQ(trained.forward, frozen.forward);
        }
        EXPECT_LE(trained.forward.bytes, frozen.forward.bytes);
        EXPECT_LT(trained.backward.calls, frozen.backward.calls);
        EXPECT_LT(trained.backward.bytes, frozen.backward.bytes);
      }
    }
  }
}

// Megatron's counts: an all-reduce at the end of each half of a block and one
// for the embedding; the head's and each half's input in backward. Over tokens
// an all-reduce is a gather and a scatter. The loss takes three numbers a row
// and rank.
TEST(TrafficTest, TheFrozenModelSendsWhatItsSplitRequires) {
  const GptConfig model = UnevenModel();
  const int64_t tokens = 32;  // Of RowOf(0), rounded up.
  const int64_t array = tokens * model.hidden_size * 4;
  const auto times = [array](int64_t calls) {
    return Traffic{calls, calls * array};
  };
  const Traffic loss = {1, kSplits[0].tensor * 3 * tokens * 4};
  const int64_t blocks = model.num_layers;
  EXPECT_EQ(CountPass({.mesh = kSplits[0]}),
            (Count{times(1 + 2 * blocks), times(1 + 2 * blocks), loss}));
  EXPECT_EQ(CountPass({.mesh = kSplits[1]}),
            (Count{times(2 + 4 * blocks), times(1 + 4 * blocks), loss}));
  const Case block = {.mesh = kSplits[1], .recompute = Recompute::kBlock};
  ASSERT_TRUE(GathersAgain(block));
  EXPECT_EQ(CountPass(block),
            (Count{times(2 + 6 * blocks), times(1 + 4 * blocks), loss}));
}

// The traffic of adapter gradients of a whole run, over data and tensor ranks.
struct SyncTraffic {
  Traffic data;
  Traffic tensor;
  int64_t elements = 0;
};

SyncTraffic CountSync(int64_t micro_batches, int64_t steps) {
  const SplitOptions options = {.mesh = {.data = 2, .tensor = 2},
                                .micro_batches = micro_batches,
                                .steps = steps};
  SyncTraffic traffic;
  RunRanks(4, [&](std::unique_ptr<Communicator> world) {
    const auto session =
        Session::Over(std::move(world), Placement{}, options.mesh,
                      {.allocation = Allocation::kDirect});
    ASSERT_TRUE(session.ok()) << session.status();
    RunSplit(options, **session);
    if (!(*session)->leads()) return;
    const Mesh& mesh = (*session)->mesh();
    traffic = {mesh.data().traffic(Purpose::kAdapterGrad),
               mesh.tensor().traffic(Purpose::kAdapterGrad),
               SplitModelRun(options, **session).adapter->elements()};
  });
  return traffic;
}

TEST(TrafficTest, AStepSumsAdapterGradientsOnceWhateverTheAccumulation) {
  constexpr int64_t kSums = 4;  // Three steps, and one before them.
  const SyncTraffic once = CountSync(2, kSums - 1);
  EXPECT_EQ(once.data, (Traffic{kSums, kSums * once.elements * 4}));
  EXPECT_EQ(once.tensor.calls, kSums);
  EXPECT_LT(once.tensor.bytes, once.data.bytes);
  const SyncTraffic often = CountSync(8, kSums - 1);
  EXPECT_EQ(often.data, once.data);
  EXPECT_EQ(often.tensor, once.tensor);
}

std::string Cell(const Traffic& traffic) {
  return absl::StrFormat("%d, %d", traffic.calls, traffic.bytes);
}

// What this program counts.
std::string CountedTable() {
  std::string table =
      "| adapters on | tokens split | forward | backward | added by the "
      "adapter | backward as trained |\n|---|---|---|---|---|---|\n";
  for (const MeshConfig& mesh : kSplits) {
    const char* tokens = mesh.tensor_sequence ? "yes" : "no";
    const Count frozen = CountPass({.mesh = mesh});
    absl::StrAppend(&table, "| none | ", tokens, " | ", Cell(frozen.forward),
                    " | ", Cell(frozen.backward), " | | |\n");
    for (const std::string& target : kTargets) {
      Case c = {
          .mesh = mesh, .model = Model::kAdaptedToEmbedding, .target = target};
      const Count adapted = CountPass(c);
      c.model = Model::kAdapted;
      const Traffic added = {adapted.forward.calls + adapted.backward.calls -
                                 frozen.forward.calls - frozen.backward.calls,
                             adapted.forward.bytes + adapted.backward.bytes -
                                 frozen.forward.bytes - frozen.backward.bytes};
      absl::StrAppend(&table, "| ", target, " | ", tokens, " | ",
                      Cell(adapted.forward), " | ", Cell(adapted.backward),
                      " | ", Cell(added), " | ", Cell(CountPass(c).backward),
                      " |\n");
    }
  }
  return table;
}

// What the placements of an adapter's factors ask for beyond the frozen block,
// in a block with adapters on q k v, o, gate up and down: launches, and arrays
// [T, H] and [T, R] that a ring of ranks sends once through.
struct Factors {
  const char* name;
  const char* tokens;
  int calls;
  double wide;
  double narrow;
};

constexpr Factors kPlacements[] = {
    {"A whole and B split, A split and B whole (here)", "no", 0, 0, 0},
    {"A whole and B split, A split and B whole (here)", "yes", 0, 0, 0},
    {"the same, but B after a sum of its own", "no", 7, 0, 14},
    {"A split over R and gathered, B split and gathered", "no", 12, 6, 14},
    {"A split over R and gathered, B split and gathered", "yes", 12, 4, 14},
};

std::string PlacementTable() {
  constexpr double kTokens = 4096, kHidden = 4096, kRank = 16, kRanks = 8;
  constexpr double kMiB = 1 << 20;
  const double wide = kTokens * kHidden * 2 / kMiB * (kRanks - 1) / kRanks;
  const double narrow = wide * kRank / kHidden;
  const double base = 8 * wide;  // Two all-reduces forward, two backward.
  std::string table =
      "| factors | tokens split | launches added | MiB added | of the frozen "
      "block |\n|---|---|---|---|---|\n";
  for (const Factors& p : kPlacements) {
    const double added = p.wide * wide + p.narrow * narrow;
    absl::StrAppendFormat(&table, "| %s | %s | %d | %.1f | %.1f %% |\n", p.name,
                          p.tokens, p.calls, added, 100.0 * added / base);
  }
  return table;
}

// The text of docs/parallelism.md between two marks.
std::string Documented(const std::string& what) {
  const std::string page = ReadBytes("docs/parallelism.md");
  const std::string begin = "<!-- " + what + " -->\n";
  const std::string end = "<!-- end of " + what + " -->\n";
  const size_t first = page.find(begin);
  const size_t last = page.find(end);
  if (first == std::string::npos || last == std::string::npos) return "";
  return page.substr(first + begin.size(), last - first - begin.size());
}

// A table that differs is printed whole: put it into the page.
TEST(TrafficTest, TheTablesInTheDocumentsAreWhatIsCounted) {
  EXPECT_EQ(Documented("counted traffic"), CountedTable());
  EXPECT_EQ(Documented("placements"), PlacementTable());
}

}  // namespace
}  // namespace lorica
