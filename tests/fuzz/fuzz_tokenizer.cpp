// Any bytes as a tokenizer.json, and, where it is one, what it makes of a text that tries its
// parts. Whatever comes out must decode, at once and token by token, and never hold a control token
// that the text only spelled.
#include "runtime/text/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

using tandem::text::detokenizer;
using tandem::text::token_id;
using tandem::text::tokenizer;

void use(const std::shared_ptr<const tokenizer>& t, std::string_view text) {
  const std::vector<token_id> ids =
      t->encode(text, {.add_special_tokens = true, .parse_special = true});
  (void)t->decode(ids, false);
  detokenizer stream(t);
  for (const token_id id : ids) (void)stream.add(id);
  (void)stream.finish();
  for (const token_id id : t->encode(text, {.add_special_tokens = false, .parse_special = false})) {
    tandem::ensure(!t->is_special(id) || id == t->unknown(), "a control token out of plain text");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto read = tokenizer::from_json(input);
  if (!read) return 0;
  use(*read, " Hello  world's 123 <s>\n\t你好 e\xCC\x81 \xF0\x9F\x98\x80 \xFF<0x41>\xE2\x96\x81 ");
  use(*read, input.substr(0, 256));
  return 0;
}
