// The table itself: one line a field.
#include "gateway/openai/field_rules.hpp"

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;

namespace {

constexpr std::string_view boolean = R"({"type":"boolean"})";
constexpr std::string_view text = R"({"type":"string"})";
constexpr std::string_view ignored = R"({"description":"accepted, without effect"})";
constexpr std::string_view unbuilt = R"({"description":"not built: refused"})";

constexpr std::int64_t tokens_limit = 1 << 30;

template <class T>
result<void> into(const result<T>& read, auto& out) {
  if (!read) return read.error();
  out = static_cast<std::decay_t<decltype(out)>>(*read);
  return {};
}

// `into` for optional numbers of a narrower type.
template <class Narrow, class T>
result<void> into_optional(const result<T>& read, std::optional<Narrow>& out) {
  if (!read) return read.error();
  out = static_cast<Narrow>(*read);
  return {};
}

result<void> ignore(const json_field&, request_fields&) { return {}; }

result<void> refuse(const json_field& field, request_fields&) {
  return not_built(field.name, "this is not built here yet; leave it out");
}

// Refused only when it asks for something: false, empty lists and objects don't.
result<void> refuse_if_set(const json_field& field, request_fields& out) {
  const bool unset = (field.value.is_bool() && !bool(field.value)) ||
                     (field.value.is_array() && dom::array(field.value).size() == 0) ||
                     (field.value.is_object() && dom::object(field.value).size() == 0);
  return unset ? result<void>() : refuse(field, out);
}

template <bool request_fields::*member>
result<void> flag(const json_field& field, request_fields& out) {
  return into(read_bool(field), out.*member);
}

template <std::optional<bool> request_fields::*member>
result<void> optional_flag(const json_field& field, request_fields& out) {
  return into_optional<bool>(read_bool(field), out.*member);
}

template <std::optional<dom::element> request_fields::*member>
result<void> as_it_is(const json_field& field, request_fields& out) {
  out.*member = field.value;
  return {};
}

template <std::optional<int> request_fields::*member, std::int64_t low, std::int64_t high>
result<void> integer(const json_field& field, request_fields& out) {
  return into_optional<int>(read_integer(field, {low, high}), out.*member);
}

template <int request_fields::*member, std::int64_t low, std::int64_t high>
result<void> plain_integer(const json_field& field, request_fields& out) {
  return into(read_integer(field, {low, high}), out.*member);
}

// Bounds in hundredths: clang 14 knows no floating-point template arguments.
template <std::optional<float> request_fields::*member, int low, int high, bool above_low = false>
result<void> number(const json_field& field, request_fields& out) {
  return into_optional<float>(read_number(field, {low / 100.0, high / 100.0, above_low}),
                              out.*member);
}

const std::vector<field_rule>& model_rules() {
  static const std::vector<field_rule> rules = {
      {"model", text,
       [](const json_field& f, request_fields& out) {
         return into(read_string(f, short_string_bytes), out.model);
       }},
  };
  return rules;
}

// What shapes a chat prompt: chat, tokenize and render.
const std::vector<field_rule>& chat_prompt_rules() {
  static const std::vector<field_rule> rules = {
      {"messages",
       R"({"type":"array","minItems":1,"items":{"type":"object","required":["role"],"properties":{"role":{"enum":["system","developer","user","assistant","tool"]},"content":{"description":"a string, null, or a list of {type: text, text}"}}}})",
       as_it_is<&request_fields::messages>},
      {"tools", R"({"type":"array","items":{"type":"object"}})", as_it_is<&request_fields::tools>},
      {"documents", R"({"type":"array","items":{"type":"object"}})",
       as_it_is<&request_fields::documents>},
      {"chat_template", text,
       [](const json_field& f, request_fields& out) {
         return into_optional<std::string>(read_string(f, template_bytes_max), out.chat_template);
       }},
      {"chat_template_kwargs", R"({"type":"object"})",
       as_it_is<&request_fields::template_arguments>},
      {"reasoning_effort", text,
       [](const json_field& f, request_fields& out) {
         return into_optional<std::string>(read_string(f, short_string_bytes),
                                           out.reasoning_effort);
       }},
      {"add_generation_prompt", boolean, optional_flag<&request_fields::add_generation_prompt>},
      {"continue_final_message", boolean, flag<&request_fields::continue_final_message>},
      {"mm_processor_kwargs", unbuilt, refuse_if_set},
  };
  return rules;
}

// How to sample, when to end, what to tell: chat and completions.
const std::vector<field_rule>& generation_rules() {
  static const std::vector<field_rule> rules = {
      {"stream", boolean, flag<&request_fields::stream>},
      {"stream_options",
       R"({"type":"object","properties":{"include_usage":{"type":"boolean"},"continuous_usage_stats":{"type":"boolean"}}})",
       read_stream_options},
      {"max_tokens", R"({"type":"integer","minimum":0})",
       integer<&request_fields::max_tokens, 0, tokens_limit>},
      {"min_tokens", R"({"type":"integer","minimum":0})",
       plain_integer<&request_fields::min_tokens, 0, tokens_limit>},
      {"n", R"({"type":"integer","minimum":1,"maximum":128})",
       plain_integer<&request_fields::choices, 1, choices_max>},
      {"best_of", R"({"type":"integer","description":"must equal n"})",
       integer<&request_fields::best_of, 1, choices_max>},
      {"temperature", R"({"type":"number","minimum":0,"maximum":2})",
       number<&request_fields::temperature, 0, 200>},
      {"top_p", R"({"type":"number","exclusiveMinimum":0,"maximum":1})",
       number<&request_fields::top_p, 0, 100, true>},
      {"top_k", R"({"type":"integer","minimum":-1,"description":"-1 or 0: all"})",
       integer<&request_fields::top_k, -1, tokens_limit>},
      {"min_p", R"({"type":"number","minimum":0,"maximum":1})",
       number<&request_fields::min_p, 0, 100>},
      {"presence_penalty", R"({"type":"number","minimum":-2,"maximum":2})",
       number<&request_fields::presence_penalty, -200, 200>},
      {"frequency_penalty", R"({"type":"number","minimum":-2,"maximum":2})",
       number<&request_fields::frequency_penalty, -200, 200>},
      {"repetition_penalty", R"({"type":"number","exclusiveMinimum":0,"maximum":100})",
       number<&request_fields::repetition_penalty, 0, 10'000, true>},
      {"logit_bias",
       R"({"type":"object","maxProperties":1024,"additionalProperties":{"type":"number","minimum":-100,"maximum":100}})",
       read_logit_bias},
      {"seed", R"({"type":"integer"})",
       [](const json_field& f, request_fields& out) {
         return into_optional<std::int64_t>(read_integer(f), out.seed);
       }},
      {"stop", R"({"description":"a string, or up to 4 strings"})", read_stop},
      {"stop_token_ids", R"({"type":"array","items":{"type":"integer"}})",
       [](const json_field& f, request_fields& out) {
         return into(read_token_ids(f, stop_token_ids_max), out.stop_token_ids);
       }},
      {"include_stop_str_in_output", boolean, flag<&request_fields::include_stop>},
      {"ignore_eos", boolean, flag<&request_fields::ignore_eos>},
      {"skip_special_tokens", boolean, flag<&request_fields::skip_special_tokens>},
      {"prompt_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       integer<&request_fields::prompt_logprobs, 0, logprobs_max>},
      {"return_token_ids", boolean, flag<&request_fields::return_token_ids>},
      {"return_tokens_as_token_ids", boolean, flag<&request_fields::tokens_as_ids>},
      {"priority", R"({"type":"integer","description":"smaller runs first"})",
       plain_integer<&request_fields::priority, -tokens_limit, tokens_limit>},
      {"cache_salt", text,
       [](const json_field& f, request_fields& out) {
         return into(read_string(f, short_string_bytes), out.cache_salt);
       }},
      {"response_format", R"({"type":"object","description":"{\"type\": \"text\"} only"})",
       read_response_format},
      {"guided_json", unbuilt, refuse},
      {"guided_regex", unbuilt, refuse},
      {"guided_choice", unbuilt, refuse},
      {"guided_grammar", unbuilt, refuse},
      {"structured_outputs", unbuilt, refuse},
      {"structural_tag", unbuilt, refuse},
      {"json_schema", unbuilt, refuse},
      {"regex", unbuilt, refuse},
      {"ebnf", unbuilt, refuse},
      {"grammar", unbuilt, refuse},
      {"logits_processors", unbuilt, refuse_if_set},
      {"bad_words", unbuilt, refuse_if_set},
      {"allowed_token_ids", unbuilt, refuse_if_set},
      {"use_beam_search", unbuilt, refuse_if_set},
      {"truncate_prompt_tokens", unbuilt, refuse},
      {"spaces_between_special_tokens", ignored, ignore},
      {"length_penalty", ignored, ignore},
      {"user", ignored, ignore},
      {"safety_identifier", ignored, ignore},
      {"prompt_cache_key", ignored, ignore},
      {"metadata", ignored, ignore},
      {"store", ignored, ignore},
      {"service_tier", ignored, ignore},
      {"request_id", ignored, ignore},
  };
  return rules;
}

const std::vector<field_rule>& chat_rules() {
  static const std::vector<field_rule> rules = {
      {"max_completion_tokens", R"({"type":"integer","minimum":1})",
       integer<&request_fields::max_completion_tokens, 1, tokens_limit>},
      {"logprobs", boolean, flag<&request_fields::chat_logprobs>},
      {"top_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       integer<&request_fields::top_logprobs, 0, logprobs_max>},
      {"tool_choice", R"({"description":"\"none\": tools are shown, never called"})",
       read_tool_choice},
      {"modalities", R"({"type":"array","items":{"enum":["text"]}})", read_modalities},
      {"echo", unbuilt, refuse_if_set},
      {"add_special_tokens", unbuilt, refuse_if_set},
      {"audio", unbuilt, refuse},
      {"web_search_options", unbuilt, refuse},
      {"functions", unbuilt, refuse_if_set},
      {"function_call", unbuilt, refuse},
      {"parallel_tool_calls", ignored, ignore},
      {"prediction", ignored, ignore},
      {"verbosity", ignored, ignore},
      {"include_reasoning", ignored, ignore},
  };
  return rules;
}

const std::vector<field_rule>& completion_rules() {
  static const std::vector<field_rule> rules = {
      {"prompt",
       R"({"description":"a string, a list of strings, token ids, or a list of lists of token ids"})",
       as_it_is<&request_fields::prompt>},
      {"echo", boolean, flag<&request_fields::echo>},
      {"logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       integer<&request_fields::logprobs, 0, logprobs_max>},
      {"add_special_tokens", boolean, optional_flag<&request_fields::add_special_tokens>},
      {"parse_special",
       R"({"type":"boolean","default":false,"description":"read control tokens written in the prompt as such"})",
       flag<&request_fields::parse_special>},
      {"suffix", unbuilt,
       [](const json_field& f, request_fields& out) {
         if (f.value.is_string() && std::string_view(f.value).empty()) return result<void>();
         return refuse(f, out);
       }},
      {"prompt_embeds", unbuilt, refuse},
  };
  return rules;
}

const std::vector<field_rule>& tokenize_rules() {
  static const std::vector<field_rule> rules = {
      {"prompt", text, as_it_is<&request_fields::prompt>},
      {"add_special_tokens", boolean, optional_flag<&request_fields::add_special_tokens>},
      {"parse_special", boolean, flag<&request_fields::parse_special>},
      {"return_token_strs", boolean, flag<&request_fields::return_token_strings>},
  };
  return rules;
}

const std::vector<field_rule>& detokenize_rules() {
  static const std::vector<field_rule> rules = {
      {"tokens", R"({"type":"array","items":{"type":"integer"}})",
       [](const json_field& f, request_fields& out) {
         return into(read_token_ids(f, tokens_limit), out.tokens);
       }},
  };
  return rules;
}

}  // namespace

std::vector<field_rule> rules_of(text_route route) {
  std::vector<field_rule> all = model_rules();
  const auto add = [&](const std::vector<field_rule>& some) {
    all.insert(all.end(), some.begin(), some.end());
  };
  switch (route) {
    case text_route::chat:
      add(chat_prompt_rules());
      add(chat_rules());
      add(generation_rules());
      break;
    case text_route::completions:
      add(completion_rules());
      add(generation_rules());
      break;
    case text_route::tokenize:
      add(tokenize_rules());
      add(chat_prompt_rules());
      break;
    case text_route::detokenize:
      add(detokenize_rules());
      break;
    case text_route::render:
      add(chat_prompt_rules());
      break;
  }
  return all;
}

}  // namespace tandem::gateway::openai
