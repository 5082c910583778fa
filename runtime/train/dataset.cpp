// Files of training data: read in pieces, cut into lines, each line checked, then encoded. What a
// line is, is elsewhere: example_form (JSON), chat_print (templates), example_tokens (ids).
#include "runtime/train/dataset.hpp"

#include "runtime/train/example_form.hpp"
#include "runtime/train/example_tokens.hpp"
#include "runtime/train/jsonl_lines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <system_error>

namespace tandem::train {
namespace {

constexpr std::size_t piece_bytes = 256 << 10;

class report_writer {
 public:
  void add(std::vector<fault> faults) {
    for (fault& one : faults) {
      if (report_.faults.size() < faults_kept)
        report_.faults.push_back(std::move(one));
      else
        ++report_.unnamed;
    }
  }
  void count_line(bool good) {
    ++report_.lines;
    report_.faulty += good ? 0 : 1;
  }
  bool clean() const { return report_.faulty == 0; }
  const check_report& report() const { return report_; }

 private:
  check_report report_;
};

// Checks the form of lines and hands those that are whole on.
class line_checker {
 public:
  // Hears a line's form; its faults go where it says.
  using listener = std::function<void(std::int64_t line, const example_form&, std::vector<fault>&)>;

  explicit line_checker(listener to = {})
      : to_(std::move(to)), lines_([this](const jsonl_lines::line& line) { return check(line); }) {}

  // False: what follows need not be read.
  bool feed(std::string_view piece) { return lines_.feed(piece); }
  check_report finish() {
    lines_.finish();
    if (written_.report().lines == 0) {
      written_.count_line(false);
      written_.add({{1, {}, "the file has no examples"}});
      check_report none = written_.report();
      none.lines = 0;
      return none;
    }
    return written_.report();
  }

 private:
  bool check(const jsonl_lines::line& line) {
    std::vector<fault> faults;
    const bool first = written_.report().lines == 0;
    if (line.bytes > line_bytes_max) {
      faults.push_back({line.number,
                        {},
                        fmt::format("{} bytes long, at most {}; is it one example a line?",
                                    line.bytes, line_bytes_max)});
    } else if (first && is_other_encoding(line.text)) {
      faults.push_back({line.number, {}, "the file is UTF-16; save it as UTF-8"});
    } else if (first && line.text[line.text.find_first_not_of(" \t")] == '[') {
      faults.push_back({line.number,
                        {},
                        "the file is a JSON array; write each example on a line of its own, "
                        "without commas between (jq -c '.[]' FILE)"});
    } else {
      const example_form form = forms_.read(line.text, line.number, faults);
      if (faults.empty() && to_) to_(line.number, form, faults);
      written_.count_line(faults.empty());
      written_.add(std::move(faults));
      return true;
    }
    written_.count_line(false);
    written_.add(std::move(faults));
    return line.bytes > line_bytes_max;  // of another kind of file, one fault says it all
  }

  static bool is_other_encoding(std::string_view text) {
    return text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
  }

  listener to_;
  form_reader forms_;
  report_writer written_;
  jsonl_lines lines_;
};

result<void> read_pieces(const std::filesystem::path& path,
                         const std::function<bool(std::string_view, double)>& to) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code))
    return error{errc::io, fmt::format("{} is not a file", path.string()), {}};
  const auto size = static_cast<double>(std::filesystem::file_size(path, code));
  std::ifstream file(path, std::ios::binary);
  if (!file) return error{errc::io, fmt::format("{}: {}", path.string(), std::strerror(errno)), {}};
  std::string piece(piece_bytes, '\0');
  double done = 0;
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())) || file.gcount() > 0) {
    const auto count = static_cast<std::size_t>(file.gcount());
    done += static_cast<double>(count);
    if (!to({piece.data(), count}, size > 0 ? std::min(done / size, 1.0) : 1.0)) return {};
  }
  if (file.bad())
    return error{errc::io, fmt::format("{}: it broke off while being read", path.string()), {}};
  return {};
}

class dataset_reader {
 public:
  dataset_reader(const reader& how, std::int64_t most_tokens, too_long long_examples)
      : encoder_(how),
        most_tokens_(most_tokens),
        long_examples_(long_examples),
        lines_([this](std::int64_t line, const example_form& form, std::vector<fault>& faults) {
          take(line, form, faults);
        }) {
    ensure(most_tokens >= 2, "room for two tokens at least");
  }

  bool feed(std::string_view piece) { return lines_.feed(piece); }
  result<dataset> finish() {
    const check_report report = lines_.finish();
    if (report.faulty > 0) return error{errc::bad_file, describe(report), {}};
    if (data_.examples.empty())
      return error{errc::bad_file,
                   fmt::format("all {} examples are longer than {} tokens and were left out; raise "
                               "sequence_length",
                               data_.skipped, most_tokens_),
                   {}};
    return std::move(data_);
  }

 private:
  void take(std::int64_t line, const example_form& form, std::vector<fault>& faults) {
    // To be cut, an example must be whole first.
    const auto most = long_examples_ == too_long::truncate ? std::numeric_limits<std::size_t>::max()
                                                           : std::size_t(most_tokens_);
    auto encoded = encoder_.encode(form, most);
    if (!encoded) {
      faults.push_back({line, encoded.error().param, encoded.error().detail});
      return;
    }
    const auto length = static_cast<std::int64_t>(encoded->ids.size());
    if (length > most_tokens_) {
      if (long_examples_ == too_long::refuse) {
        faults.push_back(
            {line,
             {},
             fmt::format("{} tokens, more than the {} of a row; raise sequence_length (at most the "
                         "model's context), shorten it, or choose \"tandem\": {{\"long_examples\": "
                         "\"truncate\"}} or \"skip\"",
                         length, most_tokens_)});
        return;
      }
      if (long_examples_ == too_long::truncate) cut(*encoded);
      if (long_examples_ == too_long::skip || encoded->counted() == 0) {
        ++data_.skipped;
        return;
      }
      ++data_.truncated;
    }
    keep(std::move(*encoded));
  }

  void cut(example& e) const {
    e.ids.resize(static_cast<std::size_t>(most_tokens_));
    e.targets.resize(static_cast<std::size_t>(most_tokens_));
    e.targets.back() = -1;
  }

  void keep(example e) {
    const auto length = static_cast<std::int64_t>(e.ids.size());
    data_.tokens += length;
    data_.counted += e.counted();
    data_.longest = std::max(data_.longest, length);
    data_.examples.push_back(std::move(e));
  }

  example_encoder encoder_;
  std::int64_t most_tokens_;
  too_long long_examples_;
  dataset data_;
  line_checker lines_;
};

}  // namespace

result<check_report> check_file(const std::filesystem::path& path) {
  line_checker checker;
  const auto read =
      read_pieces(path, [&](std::string_view piece, double) { return checker.feed(piece); });
  if (!read) return read.error();
  return checker.finish();
}

check_report check_bytes(std::string_view jsonl) {
  line_checker checker;
  checker.feed(jsonl);
  return checker.finish();
}

result<dataset> read_dataset(const std::filesystem::path& path, const reader& how,
                             std::int64_t most_tokens, too_long long_examples,
                             const std::function<bool(double)>& progress) {
  dataset_reader reading(how, most_tokens, long_examples);
  bool cancelled = false;
  const auto read = read_pieces(path, [&](std::string_view piece, double fraction) {
    if (!reading.feed(piece)) return false;
    cancelled = progress && !progress(fraction);
    return !cancelled;
  });
  if (!read) return read.error();
  if (cancelled)
    return error{errc::cancelled, fmt::format("{}: reading was given up", path.string()), {}};
  return reading.finish();
}

result<dataset> read_bytes(std::string_view jsonl, const reader& how, std::int64_t most_tokens,
                           too_long long_examples) {
  dataset_reader reading(how, most_tokens, long_examples);
  reading.feed(jsonl);
  return reading.finish();
}

std::string describe(const check_report& report) {
  std::string out;
  for (const fault& one : report.faults) {
    if (!out.empty()) out += '\n';
    out += fmt::format("line {}", one.line);
    if (!one.field.empty()) out += fmt::format(", {}", one.field);
    out += fmt::format(": {}", one.what);
  }
  if (report.unnamed > 0)
    out += fmt::format("\nand {} more; {} of {} lines are faulty", report.unnamed, report.faulty,
                       report.lines);
  return out;
}

}  // namespace tandem::train
