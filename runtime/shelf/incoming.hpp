// A copy of a listing on its way into a folder of its own: pieces are asked for ahead and come in
// order, are hashed as they come, and the folder gets its name once all is there and right. What a
// try that broke off has left is hashed again and used.
#pragma once

#include "runtime/result.hpp"
#include "runtime/shelf/file_hasher.hpp"
#include "runtime/shelf/listing.hpp"
#include "runtime/shelf/lock_file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

namespace tandem::shelf {

struct wanted_piece {
  std::size_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool operator==(const wanted_piece&) const = default;
};

class incoming {
 public:
  // Into `folder`, by way of `folder`.part, which is there; `lock` keeps others away.
  incoming(listing what, std::filesystem::path folder, lock_file lock);
  incoming(incoming&& other) noexcept;
  incoming& operator=(incoming&&) = delete;
  ~incoming();

  // Looks at what is left of an earlier try, some of it at a time; true: done. First of all.
  result<bool> look();
  // The next piece that nobody has asked for yet; nothing: all of it was.
  std::optional<wanted_piece> next(std::uint64_t bytes_max);
  // What was asked for and has not come will not: `next` goes back to it.
  void ask_again();
  // The piece that was asked for first of those that have not come. A file that is whole then has
  // its SHA-256 compared: a wrong one is thrown away (bad_file).
  result<void> append(std::span<const std::byte> bytes);
  bool is_whole() const { return at_.file == what_.files.size(); }
  std::uint64_t bytes_left() const;
  // Gives the folder its name: the last call. Nothing is synced yet.
  result<lock_file> finish();

  const listing& facts() const { return what_; }

 private:
  std::filesystem::path part() const { return folder_.string() + ".part"; }
  std::filesystem::path path_in_part(std::size_t file) const;
  error failed(const char* doing) const;
  result<void> open_for_writing();
  result<void> end_file();

  listing what_;
  std::filesystem::path folder_;
  lock_file lock_;
  wanted_piece at_;     // the first byte that is not there; `bytes` counts for nothing
  wanted_piece asked_;  // the first that nobody has asked for; likewise
  std::optional<file_hasher> looking_;
  sha256 digest_;
  int writing_ = -1;
};

}  // namespace tandem::shelf
