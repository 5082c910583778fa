#include "runtime/shelf/incoming.hpp"

#include "runtime/durable_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::shelf {
namespace {

namespace fs = std::filesystem;

std::string reason(int code) {
  if (code == ENOSPC || code == EDQUOT) return "the disk is full";
  return std::strerror(code);
}

}  // namespace

incoming::incoming(listing what, fs::path folder, lock_file lock)
    : what_(std::move(what)), folder_(std::move(folder)), lock_(std::move(lock)) {}

incoming::incoming(incoming&& other) noexcept
    : what_(std::move(other.what_)),
      folder_(std::move(other.folder_)),
      lock_(std::move(other.lock_)),
      at_(other.at_),
      asked_(other.asked_),
      looking_(std::move(other.looking_)),
      digest_(std::move(other.digest_)),
      writing_(std::exchange(other.writing_, -1)) {}

incoming::~incoming() {
  if (writing_ >= 0) ::close(writing_);
}

fs::path incoming::path_in_part(std::size_t file) const {
  return path_of(what_, file, part() / what_.name);
}

error incoming::failed(const char* doing) const {
  const int cause = errno;
  return {
      errc::io,
      fmt::format("{} {}: {} ({} of {} bytes are there, {} free): make room", doing,
                  path_in_part(std::min(at_.file, what_.files.size() - 1)).string(), reason(cause),
                  what_.bytes() - bytes_left(), what_.bytes(), free_bytes(part())),
      ""};
}

std::uint64_t incoming::bytes_left() const {
  std::uint64_t left = 0;
  for (auto i = at_.file; i < what_.files.size(); ++i) left += what_.files[i].bytes;
  return left - at_.offset;
}

result<bool> incoming::look() {
  if (!looking_) {
    if (is_whole()) return true;
    const auto bytes = what_.files[at_.file].bytes;
    auto left = open_file::open(path_in_part(at_.file));
    if (bytes > 0 && (!left || left->bytes() > bytes)) {
      asked_ = at_;
      return true;
    }
    at_.offset = left ? std::min(left->bytes(), bytes) : 0;
    if (left) looking_.emplace(*std::move(left), at_.offset);
  }
  if (looking_) {
    const auto done = looking_->advance();
    if (!done) return done.error();
    if (!*done) return false;
    digest_ = looking_->take_digest();
    looking_.reset();
  }
  if (at_.offset == what_.files[at_.file].bytes) {
    const auto ended = end_file();
    if (ended) return false;  // the next one may be there too
    if (ended.error().code != errc::bad_file) return ended.error();
  }
  asked_ = at_;
  return true;
}

std::optional<wanted_piece> incoming::next(std::uint64_t bytes_max) {
  const auto& files = what_.files;
  while (asked_.file < files.size() && files[asked_.file].bytes == asked_.offset)
    asked_ = {asked_.file + 1, 0, 0};
  if (asked_.file == files.size()) return std::nullopt;
  const auto left = files[asked_.file].bytes - asked_.offset;
  const wanted_piece piece{asked_.file, asked_.offset, std::min(bytes_max, left)};
  asked_.offset += piece.bytes;
  return piece;
}

void incoming::ask_again() { asked_ = at_; }

// What lies beyond the first byte that is missing is cut off.
result<void> incoming::open_for_writing() {
  const auto path = path_in_part(at_.file);
  writing_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (writing_ < 0) return failed("opening");
  const auto offset = static_cast<off_t>(at_.offset);
  if (::ftruncate(writing_, offset) != 0) return failed("cutting");
  if (::lseek(writing_, offset, SEEK_SET) < 0) return failed("seeking in");
  return {};
}

result<void> incoming::append(std::span<const std::byte> bytes) {
  ensure(!is_whole() && bytes.size() <= what_.files[at_.file].bytes - at_.offset,
         "a piece that belongs to this file");
  if (writing_ < 0)
    if (auto opened = open_for_writing(); !opened) return opened;
  while (!bytes.empty()) {
    const auto written = ::write(writing_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("writing");
    const auto done = bytes.first(static_cast<std::size_t>(written));
    digest_.add(done);
    // Advice only: the disk begins, and whoever syncs later has less to wait for.
    ::sync_file_range(writing_, static_cast<off64_t>(at_.offset), written, SYNC_FILE_RANGE_WRITE);
    at_.offset += done.size();
    bytes = bytes.subspan(done.size());
  }
  return at_.offset < what_.files[at_.file].bytes ? result<void>() : end_file();
}

// Compares, and goes on to the next one that has any bytes.
result<void> incoming::end_file() {
  const auto& file = what_.files[at_.file];
  if (writing_ < 0)
    if (auto opened = open_for_writing(); !opened) return opened;
  const auto digest = digest_.finish();
  if (digest != file.sha256) {
    ::close(std::exchange(writing_, -1));
    at_.offset = 0;
    return error{
        errc::bad_file,
        fmt::format("{} came with the SHA-256 {}…, the head's has {}…: its {} bytes are "
                    "thrown away and fetched again",
                    file.name, digest.substr(0, 16), file.sha256.substr(0, 16), file.bytes),
        ""};
  }
  if (::close(std::exchange(writing_, -1)) != 0) return failed("closing");
  at_ = {at_.file + 1, 0, 0};
  return is_whole() || what_.files[at_.file].bytes > 0 ? result<void>() : end_file();
}

result<lock_file> incoming::finish() {
  ensure(is_whole(), "a folder gets its name when it is whole");
  if (::rename(part().c_str(), folder_.c_str()) != 0)
    return error{
        errc::io,
        fmt::format("renaming {} to {}: {}", part().string(), folder_.string(), reason(errno)), ""};
  lock_.touch();
  return std::move(lock_);
}

}  // namespace tandem::shelf
