// Which files of a hub repository a pull needs. Pure: names in, names out.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::model {

struct hub_file {
  std::string name;
  std::optional<std::uint64_t> bytes;
  std::string sha256;    // hex, of files kept in large-file storage; empty: not known
  std::string git_blob;  // hex SHA-1 over "blob SIZE\0" and the bytes; empty: not known
  bool operator==(const hub_file&) const = default;
};

struct hub_reference {
  std::string repository;
  std::string file;  // empty: whatever the model needs
  bool operator==(const hub_reference&) const = default;
};

// "org/name" or "org/name:file"; anything that could leave the models folder is refused.
result<hub_reference> parse_reference(std::string_view what);
// The answer of /api/models/REPO/revision/REV?blobs=true.
result<std::vector<hub_file>> parse_listing(std::string_view json);
// The files to fetch, weights last. Names are those of plain files below the repository's folder.
result<std::vector<hub_file>> choose_files(const std::vector<hub_file>& all,
                                           const hub_reference& reference);

}  // namespace tandem::model
