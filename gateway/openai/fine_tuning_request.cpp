#include "gateway/openai/fine_tuning_request.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/openai/misspelling.hpp"
#include "gateway/refusal.hpp"
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;

namespace {

constexpr std::size_t id_bytes_max = 128;
constexpr std::size_t model_bytes_max = 256;
constexpr std::size_t suffix_bytes_max = 64;
constexpr std::size_t pairs_max = 16;
constexpr std::int64_t pair_key_max = 64;
constexpr std::int64_t pair_value_max = 512;
constexpr std::size_t warnings_max = 4;

// What is read, and what makes no sense to read before the whole is there.
struct reading {
  job_request out;
  text::value hyperparameters;  // under method.supervised
  text::value deprecated;       // at the top
};

using reader = result<void> (*)(const json_field&, reading&);

struct rule {
  std::string_view name;
  std::string_view schema;
  reader read;
};

template <std::string store::job_record::*member, std::size_t bytes_max>
result<void> text_into(const json_field& field, reading& to) {
  const auto text = read_string(field, bytes_max);
  if (!text) return text.error();
  if (text->empty()) return bad_value(field.name, "it is empty");
  to.out.job.*member = *text;
  return {};
}

// It becomes part of the model's name, between colons.
result<void> read_suffix(const json_field& field, reading& to) {
  if (auto read = text_into<&store::job_record::suffix, suffix_bytes_max>(field, to); !read)
    return read;
  const auto& suffix = to.out.job.suffix;
  const bool plain = std::all_of(suffix.begin(), suffix.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
  if (plain) return {};
  return bad_value(field.name, fmt::format("1 to {} letters, digits, '-', '_' and '.' are "
                                           "possible, but got '{}'",
                                           suffix_bytes_max, quotable(suffix)));
}

result<void> read_seed(const json_field& field, reading& to) {
  const auto seed = read_integer(field, {0, std::numeric_limits<std::int32_t>::max()});
  if (!seed) return seed.error();
  to.out.job.seed = *seed;
  to.out.seed_given = true;
  return {};
}

result<void> read_metadata(const json_field& field, reading& to) {
  const auto pairs = read_object(field);
  if (!pairs) return pairs.error();
  if (pairs->size() > pairs_max)
    return bad_value(
        field.name, fmt::format("at most {} pairs are kept, but got {}", pairs_max, pairs->size()));
  for (const auto pair : *pairs) {
    const json_field value{fmt::format("{}.{}", field.name, pair.key), pair.value};
    const auto text = read_string(value, std::size_t{4} * pair_value_max);
    if (!text) return text.error();
    if (characters(pair.key) > pair_key_max)
      return bad_value(value.name, fmt::format("a key has at most {} characters", pair_key_max));
    if (characters(*text) > pair_value_max)
      return bad_value(value.name,
                       fmt::format("a value has at most {} characters", pair_value_max));
  }
  to.out.job.metadata_json = to_value(field.value).to_json();
  return {};
}

result<void> read_integrations(const json_field& field, reading& to) {
  const auto list = read_array(field, id_bytes_max);
  if (!list) return list.error();
  if (list->size() != 0)
    return not_built(field.name, "no other service is told of jobs; leave it out");
  to.out.job.integrations_json = "[]";
  return {};
}

result<void> read_hyperparameters(const json_field& field, reading& to) {
  if (const auto object = read_object(field); !object) return object.error();
  to.deprecated = to_value(field.value);
  return {};
}

result<void> read_method(const json_field& field, reading& to) {
  const auto object = read_object(field);
  if (!object) return object.error();
  dom::element type;
  if (object->at_key("type").get(type)) return missing("method.type");
  const auto name = read_string({"method.type", type}, id_bytes_max);
  if (!name) return name.error();
  if (*name == "dpo" || *name == "reinforcement")
    return not_built("method.type",
                     fmt::format("'{}' is not built here yet; 'supervised' is", *name));
  if (*name != "supervised")
    return bad_value("method.type",
                     fmt::format("expected 'supervised', but got '{}'", quotable(*name)));
  dom::element supervised;
  if (object->at_key("supervised").get(supervised) || supervised.is_null()) return {};
  const auto inner = read_object({"method.supervised", supervised});
  if (!inner) return inner.error();
  dom::element hyperparameters;
  if (inner->at_key("hyperparameters").get(hyperparameters) || hyperparameters.is_null()) return {};
  if (const auto checked = read_object({"method.supervised.hyperparameters", hyperparameters});
      !checked)
    return checked.error();
  to.hyperparameters = to_value(hyperparameters);
  return {};
}

result<void> read_own(const json_field& field, reading& to) {
  if (const auto object = read_object(field); !object) return object.error();
  to.out.job.own_json = to_value(field.value).to_json();
  return {};
}

constexpr auto rules = std::to_array<rule>({
    {"model", R"({"type":"string","description":"a served base model"})",
     text_into<&store::job_record::model, model_bytes_max>},
    {"training_file", R"({"type":"string","description":"of purpose fine-tune"})",
     text_into<&store::job_record::training_file, id_bytes_max>},
    {"validation_file", R"({"type":["string","null"]})",
     text_into<&store::job_record::validation_file, id_bytes_max>},
    {"suffix", R"({"type":["string","null"],"minLength":1,"maxLength":64})", read_suffix},
    {"seed", R"({"type":["integer","null"],"minimum":0,"maximum":2147483647})", read_seed},
    {"metadata",
     R"({"type":["object","null"],"maxProperties":16,"additionalProperties":{"type":"string","maxLength":512}})",
     read_metadata},
    {"integrations", R"({"type":["array","null"],"maxItems":0})", read_integrations},
    {"method",
     R"({"type":"object","required":["type"],"properties":{"type":{"enum":["supervised"]},"supervised":{"type":"object","properties":{"hyperparameters":{"$ref":"#/components/schemas/Hyperparameters"}}}}})",
     read_method},
    {"hyperparameters", R"({"$ref":"#/components/schemas/Hyperparameters"})", read_hyperparameters},
    {"tandem",
     R"({"type":"object","description":"our own options: method (lora or full), rank, alpha, learning_rate, sequence_length, …"})",
     read_own},
});

constexpr auto names = [] {
  std::array<std::string_view, rules.size()> all{};
  for (std::size_t i = 0; i < rules.size(); ++i) all[i] = rules[i].name;
  return all;
}();

void warn_if_misspelt(std::string_view unknown, job_request& out) {
  if (out.warnings.size() >= warnings_max) return;
  const std::string_view meant = nearest_name(unknown, names);
  if (!meant.empty())
    out.warnings.push_back(
        fmt::format("unknown field '{}', did you mean '{}'?", quotable(unknown), meant));
}

}  // namespace

result<job_request> read_job_request(const request_body& body) {
  reading read;
  for (const auto member : body.fields()) {
    const auto* const known = std::find_if(rules.begin(), rules.end(),
                                           [&](const rule& one) { return one.name == member.key; });
    if (known == rules.end()) {
      warn_if_misspelt(member.key, read.out);
    } else if (!member.value.is_null()) {
      if (auto good = known->read({std::string(member.key), member.value}, read); !good)
        return good.error();
    }
  }
  auto& job = read.out.job;
  if (job.model.empty()) return missing("model");
  if (job.training_file.empty()) return missing("training_file");
  if (!read.deprecated.is_null() && !read.hyperparameters.is_null())
    return bad_value("hyperparameters",
                     "they are given under 'method' as well; keep those and leave these out");
  const bool deprecated = !read.deprecated.is_null();
  const text::value& asked = deprecated ? read.deprecated : read.hyperparameters;
  auto own = text::value::from_json(job.own_json);
  if (!own) return own.error();
  if (const auto good = train::check_options(asked, *own); !good) {
    auto why = good.error();
    constexpr std::string_view published = "method.supervised.hyperparameters";
    // Named as the client wrote it.
    if (deprecated && why.param.starts_with(published)) {
      const auto at = why.detail.find(why.param);
      why.param = "hyperparameters" + why.param.substr(published.size());
      if (at != std::string::npos) why.detail.replace(at, published.size(), "hyperparameters");
    }
    return why;
  }
  job.hyperparameters_json = asked.to_json();
  return std::move(read.out);
}

bool same_job(const job_request& asked, const store::job_record& kept) {
  const auto& a = asked.job;
  return a.model == kept.model && a.training_file == kept.training_file &&
         a.validation_file == kept.validation_file && a.suffix == kept.suffix &&
         (!asked.seed_given || a.seed == kept.seed) && a.metadata_json == kept.metadata_json &&
         a.hyperparameters_json == kept.hyperparameters_json && a.own_json == kept.own_json;
}

std::string job_request_schema() {
  std::string schema = R"({"type":"object","required":["model","training_file"],"properties":{)";
  bool first = true;
  for (const rule& one : rules) {
    schema += fmt::format("{}\"{}\":{}", first ? "" : ",", one.name, one.schema);
    first = false;
  }
  return schema + "}}";
}

}  // namespace tandem::gateway::openai
