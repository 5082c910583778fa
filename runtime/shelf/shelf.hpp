// What a head gives to its nodes: the files of the served model and of the checkpoints of its jobs,
// and nothing else. A path that leads anywhere else, itself or by a link, is refused with a line.
#pragma once

#include "runtime/result.hpp"
#include "runtime/shelf/file_hasher.hpp"
#include "runtime/shelf/listing.hpp"
#include "runtime/shelf/open_file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace tandem::shelf {

struct shelf_roots {
  std::filesystem::path model;  // a file or a folder; the name itself may be a link
  std::filesystem::path jobs;   // JOB/checkpoints/step-N below it
};

// Where the files of `path` lie, links resolved; refused unless it is one of the above.
result<std::filesystem::path> place_on_shelf(const shelf_roots& roots, const std::string& path,
                                             purpose what);

// Hashes that were computed before, of files that are as they were.
class known_hashes {
 public:
  const std::string* find(const listed_file& file) const;
  void add(const listed_file& file);

 private:
  static constexpr std::size_t kept_max = 4096;
  using key = std::tuple<std::uint64_t, std::uint64_t, std::int64_t, std::uint64_t>;
  static key key_of(const listed_file& file);
  std::map<key, std::string> hashes_;
};

// The files of one path. A few of them stay open, so that a checkpoint that is removed meanwhile
// can still be read to its end.
class shelf_entry {
 public:
  static result<shelf_entry> open(const shelf_roots& roots, const std::string& path, purpose what);

  const listing& facts() const { return facts_; }
  // Whether what lies there is what was listed.
  bool is_current() const;
  // Computes some of the hashes that are missing; true: none is.
  result<bool> hash_some(known_hashes& known);
  // Refused beyond a file's end, or where it is not what was listed any more.
  result<void> read(std::size_t file, std::uint64_t offset, std::span<std::byte> into) const;

 private:
  result<open_file> open_listed(std::size_t file) const;

  std::filesystem::path place_;
  listing facts_;
  std::vector<open_file> held_;  // all, or none
  struct hashing {
    std::size_t file;
    file_hasher hasher;
  };
  std::optional<hashing> hashing_;
};

}  // namespace tandem::shelf
