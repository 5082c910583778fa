// Training data: JSON lines in any of four forms, checked strictly, read into token ids with the
// targets that count. The rule: what is wrong is said by line and field, and nothing is guessed.
//
//   {"messages": [{"role", "content", "tool_calls"?, "weight"? 0|1}…], "tools"?, "parallel_tool_calls"?}
//   {"prompt": "…", "completion": "…"}     loss on the completion and its end token
//   {"input": "…", "output": "…"}          likewise (ScalarLM's form)
//   {"text": "…"}                          loss on every token after the first
//
// Chat examples are printed by the model's own template; the loss is on assistant turns only, from
// the end of the generation prompt to the end of the turn's own end token, found by rendering the
// conversation up to each turn with and without it ("the template's own boundaries").
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/chat_template.hpp"
#include "runtime/text/tokenizer.hpp"
#include "runtime/train/batch.hpp"
#include "runtime/train/job_settings.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::train {

struct example {
  std::vector<token_id> ids;      // at least two
  std::vector<token_id> targets;  // as slot_rows::targets; the last is -1
  std::int64_t counted() const;
};

struct dataset {
  std::vector<example> examples;
  std::int64_t tokens = 0;   // over all examples
  std::int64_t counted = 0;  // targets
  std::int64_t longest = 0;  // tokens of the longest example
  std::int64_t skipped = 0;  // too long, left out as asked
  std::int64_t truncated = 0;
};

// One thing wrong with a file.
struct fault {
  std::int64_t line = 0;  // from 1
  std::string field;      // "messages[1].content"; empty: the whole line
  std::string what;       // one sentence, with what would be right
};
inline constexpr std::size_t faults_kept = 10;

struct check_report {
  std::int64_t lines = 0;  // examples, blank lines left out
  std::int64_t faulty = 0;
  std::vector<fault> faults;  // the first ten
};

// Checks the form of every line without a model: what /v1/fine_tuning/jobs runs while
// "validating_files". Reads in pieces; a line is at most `line_bytes_max` long.
inline constexpr std::size_t line_bytes_max = 8 << 20;
result<check_report> check_file(const std::filesystem::path& path);
// The same of bytes in memory (tests, fuzzing).
check_report check_bytes(std::string_view jsonl);

// How a model reads examples.
struct reader {
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::shared_ptr<const text::chat_template> chat_template;  // null: chat lines are refused
  std::string no_chat_reason;
  std::vector<token_id> eos_ids;  // the first ends completions and text
  // Top-level strings a template expects (bos_token, eos_token).
  text::value template_context;
};

// Reads the whole file. Refused (bad_file, with the first ten faults in the detail, one a line):
// a faulty line; an example longer than `most_tokens` unless settings say truncate or skip (named
// by line, with its length and the choice); one without a counted target; no example at all.
// `progress` (may be empty) hears the fraction read; it returns false to give up (cancelled).
result<dataset> read_dataset(const std::filesystem::path& path, const reader& how,
                             std::int64_t most_tokens, too_long long_examples,
                             const std::function<bool(double)>& progress = {});

// "line 3, messages[0].role: …" joined by newlines, and how many more there are.
std::string describe(const check_report& report);

}  // namespace tandem::train
