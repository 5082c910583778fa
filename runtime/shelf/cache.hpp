// Where a node keeps what it fetched from the head:
//
//   ROOT/KEY/NAME        whole: a file, or a folder of files, under its own name
//   ROOT/KEY.part/       on its way; what is there is used by the next try
//   ROOT/KEY.lock        held by whoever fetches (alone) or reads (with others); its time is the
//                        last use; says when the bytes can be trusted: since this start of the
//                        machine, or for good, once they are on the disk (disk_sync)
//
// KEY is the listing's. A device can so begin to read before a slow disk has taken everything (1.5
// s for 98 MB where this was written), and what a power cut has halved is hashed again. All of it
// is safe to use from several processes of a machine at once. Above its bound what was used longest
// ago goes first, and never what is held.
#pragma once

#include "runtime/result.hpp"
#include "runtime/shelf/incoming.hpp"
#include "runtime/shelf/listing.hpp"
#include "runtime/shelf/lock_file.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

namespace tandem::shelf {

// A path that stays what it is for as long as this is held.
struct held_path {
  std::filesystem::path path;
  std::shared_ptr<const lock_file> hold;
};

// Puts what was fetched on the disk, a stretch at a time; it is trusted for good then.
class disk_sync {
 public:
  disk_sync(listing what, held_path where) : what_(std::move(what)), where_(std::move(where)) {}
  result<bool> advance();  // true: done

 private:
  listing what_;
  held_path where_;
  std::size_t file_ = 0;
  std::uint64_t offset_ = 0;
};

class cache {
 public:
  cache(std::filesystem::path root, std::uint64_t bytes_max)
      : root_(std::move(root)), bytes_max_(bytes_max) {}

  // Nothing: it is not there whole, or just on its way.
  result<std::optional<held_path>> find(const listing& what) const;
  // Gives it its name, from when on it is found.
  result<void> finish(incoming& what) const;
  // Begins to fetch it, with room made. Nothing: another process is doing so, or it is there by
  // now. Refused: it does not fit the bound (no_memory), or the disk (io).
  result<std::optional<incoming>> begin(const listing& what) const;

 private:
  std::filesystem::path folder_of(const std::string& key) const { return root_ / key; }
  bool is_whole(const listing& what, const std::string& key) const;
  result<void> make_room(const std::string& key, std::uint64_t bytes_needed) const;

  std::filesystem::path root_;
  std::uint64_t bytes_max_;
};

}  // namespace tandem::shelf
