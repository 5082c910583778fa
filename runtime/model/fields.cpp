#include "runtime/model/fields.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace tandem::model {

namespace {

// No list of a config is longer: layer types and rope factors, a few hundred at most.
constexpr std::size_t max_list = 65536;

std::optional<std::int64_t> to_integer(simdjson::dom::element value) {
  std::int64_t whole = 0;
  if (value.get(whole) == simdjson::SUCCESS) return whole;
  // 8192.0: some converters write counts as floats.
  double number = 0;
  if (value.is_double() && value.get(number) == simdjson::SUCCESS && std::fabs(number) < 1e15 &&
      std::trunc(number) == number)
    return static_cast<std::int64_t>(number);
  return std::nullopt;
}

}  // namespace

std::optional<simdjson::dom::element> fields::find(std::string_view key) const {
  simdjson::dom::element value;
  if (object_[key].get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

bool fields::has(std::string_view key) const { return find(key).has_value(); }

void fields::refuse(errc code, std::string detail) {
  if (!failure_) failure_ = error{code, where_ + ": " + std::move(detail), {}};
}

void fields::adopt(const fields& inner) {
  if (!failure_ && inner.failure_) failure_ = inner.failure_;
}

void fields::refuse_type(std::string_view key, std::string_view wanted) {
  refuse(errc::bad_file, fmt::format("{} is {}, not {}", key, spelled(key), wanted));
}

bool fields::is_null(std::string_view key) const {
  simdjson::dom::element element;
  return object_.at_key(key).get(element) == simdjson::SUCCESS && element.is_null();
}

std::string fields::spelled(std::string_view key) const {
  const auto value = find(key);
  if (!value) return "absent";
  auto text = simdjson::to_string(*value);
  if (text.size() > 100) text = text.substr(0, 100) + "...";
  return text;
}

std::optional<std::int64_t> fields::find_integer(std::string_view key, std::int64_t least,
                                                 std::int64_t most) {
  const auto value = find(key);
  if (!value) return std::nullopt;
  const auto whole = to_integer(*value);
  if (!whole || *whole < least || *whole > most) {
    refuse_type(key, fmt::format("a whole number from {} to {}", least, most));
    return std::nullopt;
  }
  return whole;
}

std::int64_t fields::required_integer(std::string_view key, std::int64_t least, std::int64_t most) {
  if (!has(key)) refuse(errc::bad_file, fmt::format("{} is missing", key));
  return integer(key, least, least, most);
}

std::optional<double> fields::find_number(std::string_view key, double least, double most) {
  const auto value = find(key);
  if (!value) return std::nullopt;
  double number = 0;
  if (value->get(number) != simdjson::SUCCESS || !(number >= least && number <= most)) {
    refuse_type(key, fmt::format("a number from {} to {}", least, most));
    return std::nullopt;
  }
  return number;
}

std::optional<bool> fields::find_boolean(std::string_view key) {
  const auto value = find(key);
  if (!value) return std::nullopt;
  bool flag = false;
  if (value->get(flag) != simdjson::SUCCESS) {
    refuse_type(key, "true or false");
    return std::nullopt;
  }
  return flag;
}

std::optional<std::string> fields::find_string(std::string_view key) {
  const auto value = find(key);
  if (!value) return std::nullopt;
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) {
    refuse_type(key, "a text");
    return std::nullopt;
  }
  return std::string(text);
}

template <class T, class Read>
std::vector<T> fields::list(std::string_view key, std::string_view wanted, Read read) {
  std::vector<T> values;
  const auto found = find(key);
  if (!found) return values;
  simdjson::dom::array array;
  if (found->get(array) != simdjson::SUCCESS || array.size() > max_list) {
    refuse_type(key, wanted);
    return values;
  }
  for (const auto item : array) {
    std::optional<T> value = read(item);
    if (!value) {
      refuse_type(key, wanted);
      return {};
    }
    values.push_back(std::move(*value));
  }
  return values;
}

std::vector<double> fields::numbers(std::string_view key, double least, double most) {
  return list<double>(
      key, fmt::format("a list of numbers from {} to {}", least, most),
      [&](simdjson::dom::element item) -> std::optional<double> {
        double value = 0;
        if (item.get(value) != simdjson::SUCCESS || !(value >= least && value <= most))
          return std::nullopt;
        return value;
      });
}

std::vector<std::int64_t> fields::integers(std::string_view key, std::int64_t least,
                                           std::int64_t most) {
  return list<std::int64_t>(key, fmt::format("a list of whole numbers from {} to {}", least, most),
                            [&](simdjson::dom::element item) -> std::optional<std::int64_t> {
                              const auto value = to_integer(item);
                              if (!value || *value < least || *value > most) return std::nullopt;
                              return value;
                            });
}

std::vector<std::string> fields::strings(std::string_view key) {
  return list<std::string>(key, "a list of texts",
                           [](simdjson::dom::element item) -> std::optional<std::string> {
                             std::string_view text;
                             if (item.get(text) != simdjson::SUCCESS) return std::nullopt;
                             return std::string(text);
                           });
}

std::vector<std::int64_t> fields::one_or_more(std::string_view key, std::int64_t least,
                                              std::int64_t most) {
  const auto found = find(key);
  if (found && found->is_array()) return integers(key, least, most);
  const auto one = find_integer(key, least, most);
  return one ? std::vector{*one} : std::vector<std::int64_t>{};
}

std::optional<fields> fields::find_object(std::string_view key) {
  const auto found = find(key);
  if (!found) return std::nullopt;
  simdjson::dom::object inner;
  if (found->get(inner) != simdjson::SUCCESS) {
    refuse_type(key, "an object");
    return std::nullopt;
  }
  return fields(inner, where_ + ": " + std::string(key));
}

}  // namespace tandem::model
