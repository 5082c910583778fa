// Training data: JSON lines in any of four forms, checked strictly, read into token ids with the
// targets that count. The rule: what is wrong is said by line and field, and nothing is guessed.
//
//   {"messages": [{"role", "content", "tool_calls"?, "weight"? 0|1}…], "tools"?,
//   "parallel_tool_calls"?}
//   {"prompt": "…", "completion": "…"}     loss on the completion and its end token
//   {"input": "…", "output": "…"}          likewise (ScalarLM's form)
//   {"text": "…"}                          loss on every token after the first, the end token's too
//
// Chat examples are printed by the model's own template, as serving prints them; the loss is on
// assistant turns only, from where serving's generation prompt ends to the end of the turn's own
// end token (chat_print.hpp). Prompts and texts are encoded as /v1/completions encodes them:
// control tokens are never read from the data's words, only from the template's.
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
  std::int64_t lines = 0;     // examples, blank lines left out
  std::int64_t faulty = 0;    // of them
  std::vector<fault> faults;  // the first ten
  std::int64_t unnamed = 0;   // faults beyond those
};

// Checks the form of every line without a model: what /v1/fine_tuning/jobs runs while
// "validating_files". Reads in pieces; a line is at most `line_bytes_max` long. A file without an
// example is one fault of line 1. Refused: a file that cannot be read.
inline constexpr std::size_t line_bytes_max = 8 << 20;
result<check_report> check_file(const std::filesystem::path& path);
// The same of bytes in memory (tests, fuzzing).
check_report check_bytes(std::string_view jsonl);

// How a model reads examples.
struct reader {
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::shared_ptr<const text::chat_template> chat_template;  // null: chat lines are refused
  std::string no_chat_reason;
  std::vector<token_id> eos_ids;  // the first ends completions and text; all end a turn
  // Top-level strings a template expects (bos_token, eos_token: text::add_token_spellings).
  text::value template_context;
  // What templates that print the date take for now, in seconds since 1970: a job's own beginning,
  // so that it reads the same when it is taken up another day.
  std::int64_t now = 0;
};

// Reads the whole file. Refused (bad_file, with the first ten faults in the detail, one a line):
// a faulty line; a conversation that the template refuses or prints so that its turns cannot be
// found; an example longer than `most_tokens` unless settings say truncate (the head is kept; left
// out where nothing of it counts) or skip; no example at all. `progress` (may be empty) hears the
// fraction read; it returns false to give up (cancelled). The file is read in pieces: of its text
// at most a line and a piece are in memory.
result<dataset> read_dataset(const std::filesystem::path& path, const reader& how,
                             std::int64_t most_tokens, too_long long_examples,
                             const std::function<bool(double)>& progress = {});
// The same of bytes in memory (tests, fuzzing).
result<dataset> read_bytes(std::string_view jsonl, const reader& how, std::int64_t most_tokens,
                           too_long long_examples);

// "line 3, messages[0].role: …" joined by newlines, and how many more there are.
std::string describe(const check_report& report);

}  // namespace tandem::train
