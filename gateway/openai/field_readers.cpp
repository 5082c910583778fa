// The fields that take more than a bound: lists, maps, and values of which some are not built.
#include "gateway/openai/field_rules.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;

namespace {

template <class T>
result<void> into(const result<T>& read, T& out) {
  if (!read) return read.error();
  out = *read;
  return {};
}

}  // namespace

result<void> read_stop(const json_field& field, request_fields& out) {
  const auto take = [&](const json_field& one) -> result<void> {
    const auto stop = read_string(one, stop_bytes_max);
    if (!stop) return stop.error();
    if (stop->empty()) return bad_value(one.name, "a stop string must not be empty");
    out.stop.emplace_back(*stop);
    return {};
  };
  if (field.value.is_string()) return take(field);
  if (!field.value.is_array()) return wrong_type(field, "a string or an array of strings");
  const auto list = read_array(field, stop_strings_max);
  if (!list) return list.error();
  for (const dom::element one : *list) {
    if (auto taken = take({fmt::format("{}[{}]", field.name, out.stop.size()), one}); !taken)
      return taken;
  }
  return {};
}

result<void> read_logit_bias(const json_field& field, request_fields& out) {
  const auto entries = read_object(field);
  if (!entries) return entries.error();
  if (entries->size() > logit_bias_max)
    return bad_value(field.name, fmt::format("expected at most {} entries, but got {} instead",
                                             logit_bias_max, entries->size()));
  for (const auto entry : *entries) {
    const std::string_view key = entry.key;
    std::int32_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0)
      return bad_value(field.name, fmt::format("its keys must be token ids, but got '{}'",
                                               key.substr(0, short_string_bytes)));
    const auto bias =
        read_number({fmt::format("{}.{}", field.name, id), entry.value}, {-100.0, 100.0});
    if (!bias) return bias.error();
    out.logit_bias.emplace_back(id, static_cast<float>(*bias));
  }
  return {};
}

result<void> read_stream_options(const json_field& field, request_fields& out) {
  const auto options = read_object(field);
  if (!options) return options.error();
  out.has_stream_options = true;
  for (const auto option : *options) {
    const json_field one{fmt::format("{}.{}", field.name, option.key), option.value};
    if (option.value.is_null()) continue;
    result<void> read;
    if (option.key == "include_usage") read = into(read_bool(one), out.include_usage);
    if (option.key == "continuous_usage_stats") read = into(read_bool(one), out.continuous_usage);
    if (!read) return read;
  }
  return {};
}

result<void> read_response_format(const json_field& field, request_fields&) {
  const auto format = read_object(field);
  if (!format) return format.error();
  dom::element type;
  if (format->at_key("type").get(type)) return missing("response_format.type");
  const auto name = read_string({"response_format.type", type}, short_string_bytes);
  if (!name) return name.error();
  if (*name == "text") return {};
  return not_built("response_format",
                   fmt::format("'{}' is not built here yet, and text without that form would be "
                               "no answer; leave it out, or use {{\"type\": \"text\"}}",
                               *name));
}

result<void> read_tool_choice(const json_field& field, request_fields& out) {
  if (field.value.is_object())
    return not_built(field.name, "a named tool is not built here yet; 'none' is");
  const auto choice = read_string(field, short_string_bytes);
  if (!choice) return wrong_type(field, "a string or an object");
  if (*choice != "none" && *choice != "auto" && *choice != "required")
    return bad_value(field.name,
                     fmt::format("expected 'none', 'auto' or 'required', but got '{}'", *choice));
  if (*choice == "required") return not_built(field.name, "'required' is not built here yet");
  out.tool_choice = *choice;
  return {};
}

result<void> read_modalities(const json_field& field, request_fields&) {
  const auto list = read_array(field, 8);
  if (!list) return list.error();
  for (const dom::element one : *list) {
    const auto name = read_string({field.name, one}, short_string_bytes);
    if (!name) return name.error();
    if (*name != "text")
      return not_built(field.name, fmt::format("'{}' is not built here; only text is", *name));
  }
  return {};
}

result<std::vector<std::int32_t>> read_token_ids(const json_field& field, std::size_t count_max) {
  const auto list = read_array(field, count_max);
  if (!list) return list.error();
  std::vector<std::int32_t> ids;
  ids.reserve(list->size());
  for (const dom::element one : *list) {
    std::int64_t id = 0;
    if (one.get(id) || id < 0 || id > std::numeric_limits<std::int32_t>::max()) {
      const json_field place{fmt::format("{}[{}]", field.name, ids.size()), one};
      if (!one.is_number()) return wrong_type(place, "a token id");
      return bad_value(place.name, fmt::format("expected a token id, but got {} instead",
                                               std::string(simdjson::minify(one))));
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

}  // namespace tandem::gateway::openai
