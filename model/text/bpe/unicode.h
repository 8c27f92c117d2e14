// UTF-8 and the few Unicode properties that tokenizers ask about.
#ifndef LORICA_MODEL_TEXT_BPE_UNICODE_H_
#define LORICA_MODEL_TEXT_BPE_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lorica {

// Fails with the offset of the first byte that is not UTF-8. Surrogates and
// overlong forms are not UTF-8.
absl::Status CheckUtf8(absl::string_view text);

// The code point at text[*position], which moves behind it. `text` is valid
// UTF-8 and the position the start of a character.
char32_t NextCodePoint(absl::string_view text, size_t* position);

void AppendUtf8(char32_t code_point, std::string* out);

// `bytes` with each maximal ill-formed part replaced by U+FFFD (the Unicode
// Standard, section 3.9).
std::string Utf8Lossy(absl::string_view bytes);

// Code points in valid UTF-8.
int64_t NumCodePoints(absl::string_view text);

// Property White_Space.
bool IsWhiteSpace(char32_t c);
// Categories Nd, Nl and No.
bool IsNumeric(char32_t c);
// A word character in the sense of Unicode Technical Standard 18: alphabetic,
// a mark, a decimal digit, connector punctuation or a join control.
bool IsWord(char32_t c);

// By Unicode's simple mappings; sharp s becomes SS.
std::string ToUpper(absl::string_view text);
std::string ToLower(absl::string_view text);

// Normalization form C. Where source is given, (*source)[i] becomes the offset
// in `text` of the character that byte i of the result comes from: exact where
// nothing changed, else the start of the changed run.
std::string ComposeNfc(absl::string_view text, std::vector<int64_t>* source);

// The byte-level alphabet of GPT-2: a printable character for every byte, so
// that any text is a string of characters a vocabulary can hold.
char32_t ByteToCharacter(uint8_t byte);
// The byte of a character of the alphabet, or -1.
int CharacterToByte(char32_t character);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_BPE_UNICODE_H_
