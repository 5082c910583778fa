#include "runtime/train/checkpoint_record.hpp"

#include "runtime/crc32c.hpp"
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>
#include <span>
#include <utility>

namespace tandem::train {
namespace {

constexpr std::int64_t version = 1;
constexpr std::string_view head = R"({"crc32c":")";
constexpr std::string_view middle = R"(","checkpoint":)";
constexpr std::string_view tail = "}\n";
constexpr std::size_t digits = 8;

using text::value;

error broken(std::string what) {
  return {errc::bad_file, fmt::format("{}: {}", record_name, what), {}};
}

std::string hexadecimal(std::uint32_t number) { return fmt::format("{:08x}", number); }

std::optional<std::uint32_t> number_of(std::string_view hex) {
  std::uint32_t number = 0;
  const auto read = std::from_chars(hex.data(), hex.data() + hex.size(), number, 16);
  if (hex.size() != digits || read.ec != std::errc() || read.ptr != hex.data() + hex.size())
    return std::nullopt;
  return number;
}

std::uint32_t checksum(std::string_view text) { return crc32c(std::as_bytes(std::span(text))); }

// Reads members by name and type; the first thing wrong is kept and the caller asks once.
class members {
 public:
  explicit members(const value& object) : object_(object) {
    if (object.if_object() == nullptr) fault_ = "not an object";
  }
  const value& get(std::string_view name) {
    static const value null;
    const value* found = object_.find(name);
    if (found == nullptr) complain(name, "is missing");
    return found != nullptr ? *found : null;
  }
  std::string text(std::string_view name) {
    const std::string* found = get(name).if_string();
    if (found == nullptr) complain(name, "is no text");
    return found != nullptr ? *found : std::string();
  }
  // Counts and sizes.
  std::int64_t count(std::string_view name) {
    const std::int64_t* found = get(name).if_int();
    if (found == nullptr || *found < 0) complain(name, "is no count");
    return found != nullptr ? *found : 0;
  }
  bool flag(std::string_view name) {
    const bool* found = get(name).if_bool();
    if (found == nullptr) complain(name, "is neither true nor false");
    return found != nullptr && *found;
  }
  const value::array& list(std::string_view name) {
    static const value::array none;
    const value::array* found = get(name).if_array();
    if (found == nullptr) complain(name, "is no list");
    return found != nullptr ? *found : none;
  }
  void complain(std::string_view name, std::string_view what) {
    if (fault_.empty()) fault_ = fmt::format("'{}' {}", name, what);
  }
  const std::string& fault() const { return fault_; }

 private:
  const value& object_;
  std::string fault_;
};

value encode_file(const file_record& file) {
  value::array pieces;
  for (const std::uint32_t crc : file.crc32c) pieces.emplace_back(hexadecimal(crc));
  return value::object{{"name", file.name},
                       {"bytes", static_cast<std::int64_t>(file.bytes)},
                       {"crc32c", std::move(pieces)}};
}

result<file_record> decode_file(const value& from) {
  members in(from);
  file_record file;
  file.name = in.text("name");
  file.bytes = static_cast<std::uint64_t>(in.count("bytes"));
  for (const value& piece : in.list("crc32c")) {
    const std::string* hex = piece.if_string();
    const auto crc = hex != nullptr ? number_of(*hex) : std::nullopt;
    if (!crc) in.complain("crc32c", "holds something that is no checksum");
    file.crc32c.push_back(crc.value_or(0));
  }
  if (file.crc32c.size() != (file.bytes + piece_bytes - 1) / piece_bytes)
    in.complain("crc32c", "has not one checksum for each piece");
  if (!in.fault().empty()) return broken("files: " + in.fault());
  return file;
}

value encode_layout(const std::vector<parameter>& layout) {
  value::array all;
  for (const parameter& one : layout)
    all.push_back(value::object{{"name", one.name},
                                {"first_float", static_cast<std::int64_t>(one.first_float)},
                                {"floats", static_cast<std::int64_t>(one.floats)},
                                {"matrix", one.matrix}});
  return all;
}

result<parameter> decode_parameter(const value& from, std::uint64_t arena_floats) {
  members in(from);
  parameter one;
  one.name = in.text("name");
  one.first_float = static_cast<std::size_t>(in.count("first_float"));
  one.floats = static_cast<std::size_t>(in.count("floats"));
  one.matrix = in.flag("matrix");
  if (one.first_float > arena_floats || one.floats > arena_floats - one.first_float)
    in.complain(one.name, fmt::format("lies beyond the {} numbers there are", arena_floats));
  if (!in.fault().empty()) return broken("layout: " + in.fault());
  return one;
}

}  // namespace

const file_record* checkpoint_record::file(std::string_view name) const {
  for (const file_record& one : files)
    if (one.name == name) return &one;
  return nullptr;
}

std::string encode(const checkpoint_record& record) {
  const checkpoint_facts& facts = record.facts;
  value::array files;
  for (const file_record& file : record.files) files.push_back(encode_file(file));
  const value body = value::object{{"version", version},
                                   {"job", facts.job},
                                   {"model_path", facts.model_path},
                                   {"base_name", facts.base_name},
                                   {"step", facts.step},
                                   {"step_count", facts.step_count},
                                   {"trained_tokens", facts.trained_tokens},
                                   {"settings", shown_settings(facts.settings)},
                                   {"metrics", facts.metrics},
                                   {"files", std::move(files)},
                                   {"layout", encode_layout(facts.layout)}};
  const std::string json = body.to_json();
  return fmt::format("{}{}{}{}{}", head, hexadecimal(checksum(json)), middle, json, tail);
}

result<checkpoint_record> decode(std::string_view text) {
  const std::size_t before = head.size() + digits + middle.size();
  if (text.size() < before + tail.size() || !text.starts_with(head) || !text.ends_with(tail) ||
      text.substr(head.size() + digits, middle.size()) != middle)
    return broken(fmt::format("its {} bytes are not a whole record", text.size()));
  const auto wanted = number_of(text.substr(head.size(), digits));
  const std::string_view json = text.substr(before, text.size() - before - tail.size());
  if (!wanted || checksum(json) != *wanted)
    return broken(fmt::format("its bytes give the checksum {}, it says {}",
                              hexadecimal(checksum(json)), text.substr(head.size(), digits)));

  const auto body = value::from_json(json);
  if (!body) return broken(body.error().detail);
  members in(*body);
  if (const auto found = in.count("version"); in.fault().empty() && found != version)
    return error{errc::unsupported,
                 fmt::format("{}: version {} is not known ({} is): written by another tandem",
                             record_name, found, version),
                 {}};
  checkpoint_record record;
  checkpoint_facts& facts = record.facts;
  facts.job = in.text("job");
  facts.model_path = in.text("model_path");
  facts.base_name = in.text("base_name");
  facts.step = in.count("step");
  facts.step_count = in.count("step_count");
  facts.trained_tokens = in.count("trained_tokens");
  facts.metrics = in.get("metrics");
  const value& settings = in.get("settings");
  const value::array& files = in.list("files");
  const value::array& layout = in.list("layout");
  if (!in.fault().empty()) return broken(in.fault());

  auto settled = settings_from(settings);
  if (!settled) return broken("settings: " + settled.error().detail);
  facts.settings = std::move(*settled);
  for (const value& from : files) {
    auto file = decode_file(from);
    if (!file) return file.error();
    record.files.push_back(std::move(*file));
  }
  const file_record* parameters = record.file(parameters_name);
  const file_record* first = record.file(first_moments_name);
  const file_record* second = record.file(second_moments_name);
  if (record.files.size() != 3 || parameters == nullptr || first == nullptr || second == nullptr)
    return broken("its files are not the three of a checkpoint");
  if (first->bytes != parameters->bytes || second->bytes != parameters->bytes ||
      parameters->bytes % sizeof(float) != 0)
    return broken("its files have not the same count of numbers");
  for (const value& from : layout) {
    auto one = decode_parameter(from, parameters->bytes / sizeof(float));
    if (!one) return one.error();
    facts.layout.push_back(std::move(*one));
  }
  return record;
}

}  // namespace tandem::train
