// What a model or a checkpoint consists of: names, sizes and SHA-256 of its files. Nodes compare
// what they have with the head's listing, and fetch what they lack under its key.
#pragma once

#include "runtime/result.hpp"
#include "runtime/shelf/open_file.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::shelf {

// What of a folder's files is wanted.
enum class purpose : std::uint8_t {
  model,    // what a device reads of a model
  version,  // of a checkpoint: its record and parameters, to serve it
  training  // of a checkpoint: all of it, to go on from
};

struct listed_file {
  std::string name;  // within the folder; a plain name
  std::uint64_t bytes = 0;
  std::string sha256;  // hexadecimal; empty: not computed
  file_place place;
  bool operator==(const listed_file&) const = default;
};

struct listing {
  std::string machine;  // that the places are of
  std::string name;     // the last part of the path
  bool is_folder = false;
  std::vector<listed_file> files;  // by name; one, and of that name, where it is no folder
  bool operator==(const listing&) const = default;

  std::uint64_t bytes() const;
  bool is_hashed() const;
};

inline constexpr std::size_t listed_files_max = 1024;

// A name of its own in one folder: no slash, not "." or "..", not hidden, 1 to 255 bytes.
bool is_plain_name(std::string_view name);
// Whether such a file of a folder is among what is wanted.
bool is_wanted(std::string_view name, purpose what);

// Of one that came from elsewhere: that nothing in it can lead out of the folder it is kept in.
result<void> check(const listing& what);
// SHA-256 over all names, sizes and hashes. Where it lies does not count.
std::string key_of(const listing& what);

// This machine since it was started: places of one such name can be compared.
std::string this_machines_name();

enum class likeness : std::uint8_t { other, same_sizes, same };
// Of what lies at a path here to a listing; `same` without reading only where the places agree.
likeness compare(const listing& there, const std::filesystem::path& here);
// Where a listing's file lies, of a copy at this path.
std::filesystem::path path_of(const listing& what, std::size_t file,
                              const std::filesystem::path& copy);

}  // namespace tandem::shelf
