// text_completion, whole and in chunks (both are one object for OpenAI's clients).
#include "gateway/json_writer.hpp"
#include "gateway/openai/answer_format.hpp"
#include "gateway/openai/logprobs.hpp"

namespace tandem::gateway::openai {

namespace {

class completion_answer_format final : public answer_format {
 public:
  std::string_view object(bool) const override { return "text_completion"; }

  bool has_opening(const answer_context& context) const override {
    return !context.echo.empty() || context.return_token_ids;
  }

  void append_choice(std::string& out, const answer_context& context, const choice_part& part,
                     part_kind kind) const override {
    const auto prompt = static_cast<std::size_t>(part.index / context.choices_per_prompt);
    const bool begins = kind == part_kind::whole || kind == part_kind::opening;
    const bool ends = kind == part_kind::whole || kind == part_kind::ending;
    const bool echoes = begins && !context.echo.empty();
    out += R"({"index":)";
    append_number(out, std::int64_t{part.index});
    out += R"(,"text":")";
    if (echoes) append_json_escaped(out, context.echo[prompt]);
    append_json_escaped(out, part.text);
    out += R"(","logprobs":)";
    if (context.logprobs >= 0 && kind != part_kind::ending) {
      std::span<const serve::token_id> shown_prompt;
      if (echoes) shown_prompt = context.prompts[prompt];
      append_completion_logprobs(out, context, shown_prompt, part.prompt_logprobs, part.logprobs,
                                 part.text_offset);
    } else {
      out += "null";
    }
    if (ends) {
      out += R"(,"finish_reason":")";
      out += finish_name(part.finish);
      out += '"';
      append_stop_reason(out, context, part);
    } else {
      out += R"(,"finish_reason":null)";
    }
    if (context.return_token_ids) {
      out += R"(,"token_ids":)";
      append_ids(out, part.tokens);
      if (begins) {
        out += R"(,"prompt_token_ids":)";
        append_ids(out, context.prompts[prompt]);
      }
    }
    if (context.prompt_logprobs >= 0 && begins) {
      out += R"(,"prompt_logprobs":)";
      append_prompt_logprobs(out, context, part.prompt_logprobs);
    }
    out += '}';
  }

  void append_extras(std::string&, const answer_context&,
                     const std::vector<choice_part>&) const override {}
};

}  // namespace

const answer_format& completion_format() {
  static const completion_answer_format format;
  return format;
}

}  // namespace tandem::gateway::openai
