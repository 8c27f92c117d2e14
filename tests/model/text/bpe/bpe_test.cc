#include "model/text/bpe/bpe.h"

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

std::vector<int32_t> Encode(const TokenizerData& data,
                            const std::string& word) {
  absl::StatusOr<Bpe> bpe = Bpe::Create(data);
  EXPECT_TRUE(bpe.ok()) << bpe.status();
  std::vector<int32_t> ids;
  bpe->Encode(word, &ids);
  std::vector<int32_t> again;
  bpe->Encode(word, &again);  // From the cache.
  EXPECT_EQ(ids, again);
  return ids;
}

TEST(BpeTest, MergesTheBestRankFirstThenTheLeftmost) {
  const TokenizerData data{
      .tokens = {"a", "b", "ab", "ba", "aba"},
      .merges = {{"b", "a"}, {"a", "b"}, {"ab", "a"}, {"a", "ba"}}};
  EXPECT_THAT(Encode(data, "ab"), testing::ElementsAre(2));
  EXPECT_THAT(Encode(data, "aba"), testing::ElementsAre(4));
  EXPECT_THAT(Encode(data, "abab"), testing::ElementsAre(4, 1));
  EXPECT_THAT(Encode(data, "bab"), testing::ElementsAre(3, 1));
}

TEST(BpeTest, TheLastOfTwoEqualMergesCounts) {
  const TokenizerData data{.tokens = {"a", "b", "c", "ab", "bc"},
                           .merges = {{"a", "b"}, {"b", "c"}, {"a", "b"}}};
  EXPECT_THAT(Encode(data, "abc"), testing::ElementsAre(0, 4));
}

TEST(BpeTest, DropsOrReplacesUnknownCharacters) {
  TokenizerData data{.tokens = {"a", "?"}};
  EXPECT_THAT(Encode(data, "axya"), testing::ElementsAre(0, 0));
  data.unk = 1;
  EXPECT_THAT(Encode(data, "axya"), testing::ElementsAre(0, 1, 1, 0));
  data.fuse_unk = true;
  EXPECT_THAT(Encode(data, "axyax"), testing::ElementsAre(0, 1, 0, 1));
}

TEST(BpeTest, AWordThatIsATokenMayNeedNoMerges) {
  TokenizerData data{.tokens = {"a", "b", "c", "ab", "abc", "bc"},
                     .merges = {{"b", "c"}}};
  EXPECT_THAT(Encode(data, "abc"), testing::ElementsAre(0, 5));
  data.ignore_merges = true;
  EXPECT_THAT(Encode(data, "abc"), testing::ElementsAre(4));
}

TEST(BpeTest, RefusesContradictions) {
  const TokenizerData twice{.tokens = {"a", "b", "a"}};
  EXPECT_THAT(std::string(Bpe::Create(twice).status().message()),
              testing::HasSubstr("token 'a' has two ids, 0 and 2"));
  const TokenizerData result{.tokens = {"a", "b"}, .merges = {{"a", "b"}}};
  EXPECT_THAT(std::string(Bpe::Create(result).status().message()),
              testing::HasSubstr("needs the token 'ab'"));
  const TokenizerData part{.tokens = {"a", "ab"}, .merges = {{"a", "b"}}};
  EXPECT_THAT(std::string(Bpe::Create(part).status().message()),
              testing::HasSubstr("needs the token 'b'"));
}

// What the heap does fast: look for the best pair again after every merge.
std::vector<std::string> MergeNaively(
    const std::map<std::pair<std::string, std::string>, int>& ranks,
    const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) {
    parts.emplace_back(1, c);
  }
  while (true) {
    int best = -1;
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = ranks.find({parts[i], parts[i + 1]});
      if (it != ranks.end() && (best < 0 || it->second < best)) {
        best = it->second;
        at = i;
      }
    }
    if (best < 0) {
      return parts;
    }
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<int64_t>(at) + 1);
  }
}

TEST(BpeTest, MergesAsASearchForTheBestPairDoes) {
  std::mt19937 random(1);
  TokenizerData data{.tokens = {"a", "b", "c"}};
  std::map<std::pair<std::string, std::string>, int> ranks;
  std::map<std::string, int> made;
  while (data.merges.size() < 60) {
    const std::string left = data.tokens[random() % data.tokens.size()];
    const std::string right = data.tokens[random() % data.tokens.size()];
    // One way to make each token, as training leaves it.
    if (left.size() + right.size() <= 6 && made[left + right]++ == 0) {
      ranks[{left, right}] = static_cast<int>(data.merges.size());
      data.merges.emplace_back(left, right);
      data.tokens.push_back(left + right);
    }
  }
  for (int round = 0; round < 500; ++round) {
    std::string word;
    for (size_t n = random() % 100; n > 0; --n) {
      word.push_back(static_cast<char>('a' + random() % 3));
    }
    std::vector<std::string> parts;
    for (const int32_t id : Encode(data, word)) {
      parts.push_back(data.tokens[id]);
    }
    EXPECT_EQ(parts, MergeNaively(ranks, word)) << word;
  }
}

}  // namespace
}  // namespace lorica
