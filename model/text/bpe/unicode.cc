#include "model/text/bpe/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/text/bpe/recent_characters.h"
#include "runtime/check.h"

namespace lorica {
namespace {

struct Sequence {
  size_t length;  // Bytes of the character, or of the ill-formed part.
  bool valid;
};

// What starts at text[position]: the Unicode Standard, table 3-7.
Sequence SequenceAt(absl::string_view text, size_t position) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0};
  };
  const uint8_t lead = byte(position);
  if (lead < 0x80) {
    return {1, true};
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return {1, false};
  }
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    if (i == 1) {
      low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : low;
      high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : high;
    }
    const uint8_t next = byte(position + i);
    if (next < low || next > high) {
      return {i, false};
    }
  }
  return {length, true};
}

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

template <size_t kSize>
bool IsIn(const CharacterRange (&ranges)[kSize], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const CharacterRange& range) {
                       return c >= range.first && c <= range.last;
                     });
}

std::string MapEach(absl::string_view text,
                    utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(NextCodePoint(text, &at));
    AppendUtf8(static_cast<char32_t>(map(c)), &out);
  }
  return out;
}

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int16_t, 512> bytes{};

  // Printable Latin-1 stands for itself, the rest for 256, 257, ... in order.
  constexpr Alphabet() {
    for (int16_t& byte : bytes) {
      byte = -1;
    }
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable =
          (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
      characters[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes[characters[b]] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

absl::Status CheckUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Sequence sequence = SequenceAt(text, i);
    if (!sequence.valid) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text is not UTF-8: byte ", i, " of ", text.size(),
                       " is 0x", absl::Hex(static_cast<uint8_t>(text[i]))));
    }
    i += sequence.length;
  }
  return absl::OkStatus();
}

char32_t NextCodePoint(absl::string_view text, size_t* position) {
  utf8proc_int32_t c = 0;
  const utf8proc_ssize_t length = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + *position,
      static_cast<utf8proc_ssize_t>(text.size() - *position), &c);
  DCHECK_GT(length, 0);
  *position += static_cast<size_t>(length);
  return static_cast<char32_t>(c);
}

void AppendUtf8(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes),
              static_cast<size_t>(length));
}

std::string Utf8Lossy(absl::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const Sequence sequence = SequenceAt(bytes, i);
    if (sequence.valid) {
      absl::StrAppend(&out, bytes.substr(i, sequence.length));
    } else {
      AppendUtf8(0xFFFD, &out);
    }
    i += sequence.length;
  }
  return out;
}

int64_t NumCodePoints(absl::string_view text) {
  int64_t count = 0;
  for (const char c : text) {
    count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  }
  return count;
}

bool IsWhiteSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  const utf8proc_category_t category = Category(c);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO ||
         (category == UTF8PROC_CATEGORY_CN &&
          (IsIn(kRecentNumbers, c) || IsIn(kNewestNumbers, c)));
}

bool IsWord(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  // Circled and squared letters are alphabetic symbols.
  return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

std::string ToUpper(absl::string_view text) {
  // The one common character whose upper case is two.
  return MapEach(absl::StrReplaceAll(text, {{"\u00df", "SS"}}),
                 utf8proc_toupper);
}

std::string ToLower(absl::string_view text) {
  return MapEach(text, utf8proc_tolower);
}

std::string ComposeNfc(absl::string_view text, std::vector<int64_t>* source) {
  std::string out;
  out.reserve(text.size());
  const auto is_ascii = [&](size_t i) {
    return static_cast<uint8_t>(text[i]) < 0x80;
  };
  // ASCII characters are starters that compose with nothing before them, so
  // each begins a run that normalizes by itself.
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && !is_ascii(end)) {
      ++end;
    }
    const absl::string_view run = text.substr(begin, end - begin);
    std::string composed(run);
    if (run.size() > 1) {
      utf8proc_uint8_t* result = nullptr;
      const utf8proc_ssize_t length = utf8proc_map(
          reinterpret_cast<const utf8proc_uint8_t*>(run.data()),
          static_cast<utf8proc_ssize_t>(run.size()), &result,
          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
      CHECK_GE(length, 0) << utf8proc_errmsg(length);
      composed.assign(reinterpret_cast<const char*>(result),
                      static_cast<size_t>(length));
      std::free(result);
    }
    out += composed;
    if (source != nullptr) {
      const bool changed = composed != run;
      for (size_t i = 0; i < composed.size(); ++i) {
        source->push_back(static_cast<int64_t>(changed ? begin : begin + i));
      }
    }
    begin = end;
  }
  return out;
}

char32_t ByteToCharacter(uint8_t byte) { return kAlphabet.characters[byte]; }

int CharacterToByte(char32_t character) {
  return character < kAlphabet.bytes.size() ? kAlphabet.bytes[character] : -1;
}

}  // namespace lorica
