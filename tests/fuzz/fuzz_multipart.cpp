// multipart/form-data cut anywhere: whatever comes, the same parts come out of it as when it comes
// whole, parts nest as they should, and nothing is held back beyond a boundary's length.
#include "gateway/openai/multipart_parser.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

using namespace tandem;
using namespace tandem::gateway::openai;

namespace {

class recorder final : public multipart_listener {
 public:
  std::string told;  // all of it as text, to be compared
  result<void> on_part(const multipart_part& part) override {
    ensure(!within_, "a part begins when the last has ended");
    within_ = true;
    told += "[" + part.name + "|" + part.filename.value_or("-") + "|" + part.content_type + "]";
    return {};
  }
  result<void> on_data(std::string_view bytes) override {
    ensure(within_ && !bytes.empty(), "data is of a part");
    told += bytes;
    return {};
  }
  result<void> on_part_end() override {
    ensure(within_, "a part ends once");
    within_ = false;
    told += "[/]";
    return {};
  }

 private:
  bool within_ = false;
};

// `pieces`: bits that choose how long the next one is.
bool parse(std::string_view boundary, std::string_view body, std::uint64_t pieces, recorder& into) {
  multipart_parser parser(boundary, into);
  while (!body.empty()) {
    const std::size_t size = pieces == 0 ? body.size() : 1 + (pieces & 15U);
    pieces = pieces == 0 ? 0 : (pieces >> 3U) | (pieces << 61U);
    if (!parser.feed(body.substr(0, size))) return false;
    body.remove_prefix(std::min(body.size(), size));
  }
  return parser.finish().has_value();
}

}  // namespace

// The first line is the Content-Type, the next byte chooses the pieces, the rest is the body.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string all;
  for (std::size_t i = 0; i < size; ++i) all += static_cast<char>(data[i]);
  const std::size_t line_end = all.find('\n');
  if (line_end == std::string::npos || line_end + 1 >= all.size()) return 0;
  const auto boundary = multipart_boundary(std::string_view(all).substr(0, line_end));
  if (!boundary) return 0;
  const auto seed = static_cast<unsigned char>(all[line_end + 1]);
  const std::string_view body = std::string_view(all).substr(line_end + 2);
  recorder whole;
  recorder pieced;
  const bool good = parse(*boundary, body, 0, whole);
  const bool good_pieced = parse(*boundary, body, 0x9e3779b97f4a7c15ULL * (seed + 1ULL), pieced);
  ensure(good == good_pieced, "where a body is cut does not decide whether it is one");
  if (good) ensure(whole.told == pieced.told, "where a body is cut changes nothing in it");
  return 0;
}
