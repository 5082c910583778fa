#include "gateway/openai/file_form.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/openai/request_body.hpp"
#include "gateway/refusal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace tandem::gateway::openai {

namespace {

constexpr auto purposes = std::to_array<std::string_view>(
    {"fine-tune", "batch", "assistants", "vision", "user_data", "evals"});
constexpr std::size_t field_bytes_max = 256;
constexpr std::size_t filename_bytes_max = 255;
// Enough to see whether the first line is JSON, unless it is a very long one.
constexpr std::size_t beginning_bytes_max = 64 << 10;

error disk_error(const std::filesystem::path& path, int code) {
  const bool full = code == ENOSPC || code == EDQUOT;
  return {errc::io,
          full ? "The server's disk is full: the file was not kept."
               : fmt::format("The server could not write the file to {}: {}.",
                             path.parent_path().string(), std::strerror(code)),
          "file"};
}

}  // namespace

std::string clean_filename(std::string_view given) {
  // npos + 1 is 0: no folder.
  std::string name = to_valid_utf8(given.substr(given.find_last_of("/\\") + 1));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; }, '_');
  return name.empty() || name == "." || name == ".." ? "upload" : name;
}

result<std::shared_ptr<body_sink>> file_form::open(const http_request& request,
                                                   std::shared_ptr<store::store> files,
                                                   std::int64_t file_bytes_max) {
  const auto boundary = multipart_boundary(request.header("content-type"));
  if (!boundary) return boundary.error();
  return std::shared_ptr<body_sink>(
      std::make_shared<file_form>(*boundary, std::move(files), file_bytes_max));
}

file_form::file_form(std::string_view boundary, std::shared_ptr<store::store> files,
                     std::int64_t file_bytes_max)
    : files_(std::move(files)), file_bytes_max_(file_bytes_max), parser_(boundary, *this) {}

file_form::~file_form() {
  if (file_ >= 0) ::close(file_);
  if (!part_path_.empty()) ::unlink(part_path_.c_str());
}

result<void> file_form::write(std::string_view bytes) { return parser_.feed(bytes); }

result<void> file_form::finish() {
  if (auto whole = parser_.finish(); !whole) return whole;
  if (file_ < 0) return missing("file");
  if (!purpose_) return missing("purpose");
  // What close() has to say about the bytes (NFS, quotas) counts.
  if (const int closing = std::exchange(file_, -1); ::close(closing) != 0)
    return disk_error(part_path_, errno);
  return {};
}

result<void> file_form::on_part(const multipart_part& part) {
  now_ = part.name == "file" ? field::file : part.name == "purpose" ? field::purpose : field::other;
  const auto twice = [&] { return bad_value(part.name, "it is given twice"); };
  if (now_ == field::purpose) {
    if (purpose_) return twice();
    purpose_.emplace();
  } else if (now_ == field::file) {
    if (filename_) return twice();
    filename_ = clean_filename(part.filename.value_or(""));
    if (filename_->size() > filename_bytes_max)
      return bad_value("file", fmt::format("its name is longer than {} bytes", filename_bytes_max));
    part_path_ = files_->part_path();
    file_ = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file_ < 0) return disk_error(part_path_, errno);
  } else if (part.name.starts_with("expires_after")) {
    return not_built("expires_after", "files stay until they are deleted; leave it out");
  }
  return {};
}

result<void> file_form::on_data(std::string_view bytes) {
  if (now_ == field::file) return write_file(bytes);
  if (now_ != field::purpose) return {};
  if (purpose_->size() + bytes.size() > field_bytes_max)
    return bad_value("purpose", fmt::format("it is longer than {} bytes", field_bytes_max));
  *purpose_ += bytes;
  return {};
}

result<void> file_form::on_part_end() {
  now_ = field::none;
  return {};
}

result<void> file_form::write_file(std::string_view bytes) {
  bytes_ += static_cast<std::int64_t>(bytes.size());
  if (bytes_ > file_bytes_max_)
    return error{
        errc::too_large,
        fmt::format("The file is larger than {} bytes (server.max_file_bytes).", file_bytes_max_),
        "file"};
  if (beginning_.size() < beginning_bytes_max)
    beginning_ += bytes.substr(0, beginning_bytes_max - beginning_.size());
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return disk_error(part_path_, errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

// A file that is plainly something else is refused here, where its sender sees it. What is wrong
// with single examples is said by the job that reads them, by line and field.
result<void> file_form::check_lines() const {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  std::string_view rest = beginning_;
  if (rest.starts_with(byte_order_mark)) rest.remove_prefix(byte_order_mark.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
  const bool all_seen = bytes_ == static_cast<std::int64_t>(beginning_.size());
  if (rest.empty() && all_seen)
    return error{errc::bad_request, "The file is empty: send one JSON object a line.", "file"};
  const std::size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  const auto refused = [&](std::string_view why) {
    return error{errc::bad_request,
                 fmt::format("Expected file to have JSONL format, where every line is a JSON "
                             "object: the first line {}. It begins with: '{}'.",
                             why, quotable(line.substr(0, 40))),
                 "file"};
  };
  if (!line.starts_with('{')) return refused("is none");
  const bool whole = end != rest.npos || all_seen;
  if (!whole) return {};
  if (const auto parsed = request_body::parse(std::string(line)); !parsed)
    return refused("is not valid JSON");
  return {};
}

result<store::file_record> file_form::keep() {
  ensure(!part_path_.empty() && file_ < 0, "a form is kept once it is complete");
  if (std::find(purposes.begin(), purposes.end(), *purpose_) == purposes.end())
    return error{errc::bad_request,
                 fmt::format("'{}' is not one of ['{}'] - 'purpose'", quotable(*purpose_),
                             fmt::join(purposes, "', '")),
                 "purpose"};
  if (*purpose_ == "fine-tune" || *purpose_ == "batch")
    if (const auto good = check_lines(); !good) return good.error();
  store::file_record file;
  file.filename = *filename_;
  file.purpose = *purpose_;
  auto kept = files_->add_file(std::move(file), part_path_);
  if (kept) part_path_.clear();
  return kept;
}

}  // namespace tandem::gateway::openai
