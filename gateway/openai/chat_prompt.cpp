#include "gateway/openai/chat_prompt.hpp"

#include "gateway/openai/field_rules.hpp"
#include "runtime/text/chat_messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;
using text::prompt_piece;
using text::value;

namespace {

// As transformers does it: put behind the text to be continued, cut there after rendering. A
// template that trims its messages takes the space and leaves the rest.
constexpr std::string_view continue_mark = "CONTINUE_FINAL_MESSAGE_TAG ";

// Set by the fields of their own; chat_template_kwargs must not contradict them.
constexpr auto reserved_names = std::to_array<std::string_view>(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
     "chat_template", "bos_token", "eos_token", "unk_token"});

result<void> check_content_parts(const json_field& content) {
  std::size_t index = 0;
  for (const dom::element part : dom::array(content.value)) {
    const json_field place{fmt::format("{}[{}]", content.name, index++), part};
    if (part.is_string()) continue;
    const auto object = read_object(place);
    if (!object) return object.error();
    dom::element type;
    if (object->at_key("type").get(type)) return missing(place.name + ".type");
    const auto kind = read_string({place.name + ".type", type}, short_string_bytes);
    if (!kind) return kind.error();
    if (*kind != "text" && *kind != "refusal")
      return not_built(place.name, fmt::format("'{}' parts cannot be read by this model; it takes "
                                               "text only",
                                               *kind));
    dom::element words;
    if (object->at_key(*kind).get(words)) return missing(fmt::format("{}.{}", place.name, *kind));
    if (!words.is_string())
      return wrong_type({fmt::format("{}.{}", place.name, *kind), words}, "a string");
  }
  return {};
}

result<void> check_content(const json_field& content) {
  if (content.value.is_null() || content.value.is_string()) return {};
  if (content.value.is_array()) return check_content_parts(content);
  return wrong_type(content, "a string or an array of text parts");
}

result<value> read_message(const json_field& field) {
  const auto object = read_object(field);
  if (!object) return object.error();
  dom::element role_field;
  if (object->at_key("role").get(role_field)) return missing(field.name + ".role");
  const auto role = read_string({field.name + ".role", role_field}, short_string_bytes);
  if (!role) return role.error();
  if (std::find(text::chat_roles.begin(), text::chat_roles.end(), *role) == text::chat_roles.end())
    return bad_value(field.name + ".role",
                     fmt::format("expected one of 'system', 'developer', 'user', 'assistant' and "
                                 "'tool', but got '{}'",
                                 *role));
  dom::element content_field;
  const bool has_content = object->at_key("content").get(content_field) == simdjson::SUCCESS;
  if (!has_content && *role != "assistant") return missing(field.name + ".content");
  if (has_content && content_field.is_null() && *role != "assistant")
    return wrong_type({field.name + ".content", content_field},
                      "a string or an array of text parts");
  if (has_content)
    if (auto good = check_content({field.name + ".content", content_field}); !good)
      return good.error();
  value message = to_value(field.value);
  // What was checked, also where a key is there twice.
  message.set("role", std::string(*role));
  if (has_content) message.set("content", to_value(content_field));
  return text::template_message(std::move(message));
}

result<value::array> read_messages(const request_fields& fields) {
  if (!fields.messages) return missing("messages");
  if (!fields.messages->is_array())
    return wrong_type({"messages", *fields.messages}, "an array of objects");
  const dom::array list(*fields.messages);
  if (list.size() == 0)
    return bad_value("messages", "empty array. Expected an array with at least 1 element");
  value::array messages;
  for (const dom::element one : list) {
    auto message = read_message({fmt::format("messages[{}]", messages.size()), one});
    if (!message) return message.error();
    messages.push_back(std::move(*message));
  }
  return messages;
}

result<void> mark_final_message(value::array& messages) {
  value& last = messages.back();
  if (*last.find("role")->if_string() != "assistant")
    return bad_value("continue_final_message", "the final message must be the assistant's");
  last.set("content", *last.find("content")->if_string() + std::string(continue_mark));
  return {};
}

// The tools to show: none without `tools`; calls would need a parser that is not built yet.
result<std::optional<value>> read_tools(const request_fields& fields) {
  if (!fields.tools) return std::optional<value>();
  const auto list = read_array({"tools", *fields.tools}, 128);
  if (!list) return list.error();
  if (list->size() == 0) return std::optional<value>();
  if (fields.tool_choice != "none")
    return not_built("tools",
                     "tool calls are not parsed here yet, so the model's calls would reach you as "
                     "plain text; send \"tool_choice\": \"none\" to show the tools to the model "
                     "and get its answer as text, or leave them out");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const dom::element one = list->at(i);
    if (!one.is_object()) return wrong_type({fmt::format("tools[{}]", i), one}, "an object");
  }
  return std::optional<value>(to_value(*fields.tools));
}

result<void> add_template_arguments(const request_fields& fields, value& context) {
  if (!fields.template_arguments) return {};
  const auto arguments = read_object({"chat_template_kwargs", *fields.template_arguments});
  if (!arguments) return arguments.error();
  for (const auto argument : *arguments) {
    if (std::find(reserved_names.begin(), reserved_names.end(), argument.key) !=
        reserved_names.end())
      return bad_value("chat_template_kwargs",
                       fmt::format("'{}' has a field of its own", argument.key));
    context.set(argument.key, to_value(argument.value));
  }
  return {};
}

// Cuts the print after the last mark; spaces before it go when the template had trimmed them.
result<std::vector<prompt_piece>> cut_at_mark(std::vector<prompt_piece> pieces) {
  std::string whole;
  for (const prompt_piece& piece : pieces) whole += piece.text;
  const std::string_view bare_mark = continue_mark.substr(0, continue_mark.size() - 1);
  std::size_t end = whole.rfind(bare_mark);
  if (end == std::string::npos)
    return bad_value("continue_final_message",
                     "the chat template does not print the final message as it is");
  if (whole.compare(end, continue_mark.size(), continue_mark) != 0)
    while (end > 0 && std::string_view(" \t\r\n").find(whole[end - 1]) != std::string_view::npos)
      --end;
  std::vector<prompt_piece> kept;
  for (prompt_piece& piece : pieces) {
    if (end == 0) break;
    if (piece.text.size() > end) piece.text.resize(end);
    end -= piece.text.size();
    kept.push_back(std::move(piece));
  }
  return kept;
}

error no_chat(const served_model& model) {
  return {errc::bad_request,
          fmt::format("The model '{}' cannot chat: {}", model.id,
                      model.no_chat_reason.empty() ? "it has no chat template or no tokenizer; use "
                                                     "/v1/completions."
                                                   : model.no_chat_reason),
          "messages"};
}

}  // namespace

result<value> chat_context(const request_fields& fields, const served_model& model) {
  auto messages = read_messages(fields);
  if (!messages) return messages.error();
  if (fields.continue_final_message)
    if (auto marked = mark_final_message(*messages); !marked) return marked.error();
  auto tools = read_tools(fields);
  if (!tools) return tools.error();

  value context;
  context.set("messages", std::move(*messages));
  context.set("add_generation_prompt",
              fields.add_generation_prompt.value_or(!fields.continue_final_message));
  if (*tools) context.set("tools", std::move(**tools));
  if (fields.documents) {
    const auto documents = read_array({"documents", *fields.documents}, 4096);
    if (!documents) return documents.error();
    context.set("documents", to_value(*fields.documents));
  }
  if (fields.reasoning_effort) context.set("reasoning_effort", *fields.reasoning_effort);
  text::add_token_spellings(context, *model.tokenizer);
  if (auto added = add_template_arguments(fields, context); !added) return added.error();
  return context;
}

result<std::vector<prompt_piece>> render_chat(const request_fields& fields,
                                              const served_model& model) {
  if (model.tokenizer == nullptr) return no_chat(model);
  if (model.chat_template == nullptr && !fields.chat_template) return no_chat(model);
  auto context = chat_context(fields, model);
  if (!context) return context.error();
  auto pieces = [&]() -> result<std::vector<prompt_piece>> {
    if (!fields.chat_template) return model.chat_template->render_pieces(*context);
    auto own = text::chat_template::compile(*fields.chat_template);
    if (!own)
      return bad_value("chat_template", fmt::format("it does not compile: {}", own.error().detail));
    return own->render_pieces(*context);
  }();
  // Whatever a template refuses, it refuses this conversation.
  if (!pieces)
    return error{errc::bad_request, pieces.error().detail,
                 pieces.error().param.empty() ? "messages" : pieces.error().param};
  if (!fields.continue_final_message) return pieces;
  return cut_at_mark(std::move(*pieces));
}

result<std::vector<serve::token_id>> chat_prompt(const request_fields& fields,
                                                 const served_model& model) {
  const auto too_long = [&](std::size_t bytes) -> std::optional<error> {
    const std::int64_t least = fewest_tokens(bytes, *model.tokenizer);
    if (least <= model.context_length) return std::nullopt;
    const auto limit =
        fields.max_completion_tokens ? fields.max_completion_tokens : fields.max_tokens;
    return context_overflow(model.context_length, least, limit.value_or(1), "messages");
  };
  // Megabytes that cannot fit are refused before a template or a tokenizer works on them.
  if (model.tokenizer != nullptr && fields.messages) {
    std::size_t bytes = 0;
    if (fields.messages->is_array()) {
      for (const dom::element message : dom::array(*fields.messages)) {
        dom::element content;
        if (message.at_key("content").get(content) == simdjson::SUCCESS)
          bytes += content.is_string() ? std::string_view(content).size() : 0;
      }
    }
    if (auto why = too_long(bytes)) return *why;
  }
  const auto pieces = render_chat(fields, model);
  if (!pieces) return pieces.error();
  std::size_t bytes = 0;
  for (const prompt_piece& piece : *pieces) bytes += piece.text.size();
  if (auto why = too_long(bytes)) return *why;
  return model.tokenizer->encode_prompt(*pieces);
}

error context_overflow(std::int64_t context_length, std::int64_t prompt_tokens,
                       std::int64_t completion_tokens, std::string_view param) {
  return {errc::context_length_exceeded,
          fmt::format("This model's maximum context length is {} tokens. However, you requested {} "
                      "tokens ({} in the messages, {} in the completion). Please reduce the length "
                      "of the messages or completion.",
                      context_length, prompt_tokens + completion_tokens, prompt_tokens,
                      completion_tokens),
          std::string(param)};
}

std::int64_t fewest_tokens(std::size_t bytes, const text::tokenizer& tokenizer) {
  const std::size_t longest = std::max<std::size_t>(1, tokenizer.longest_token_bytes());
  return static_cast<std::int64_t>((bytes + longest - 1) / longest);
}

}  // namespace tandem::gateway::openai
