// A file on its way: FILE.part, locked while it is written, and FILE once it is whole and right.
#pragma once

#include "runtime/model/hub_files.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace tandem::model {

class hub_part {
 public:
  // Opens or creates the part beside `path`; a part that another pull holds is a conflict.
  static result<hub_part> open(const std::filesystem::path& path);
  hub_part(hub_part&& other) noexcept;
  hub_part& operator=(hub_part&&) = delete;
  ~hub_part();

  std::uint64_t bytes() const { return bytes_; }
  // The entity tag the bytes so far came with; empty when the server named none.
  const std::string& etag() const { return etag_; }

  result<void> append(std::string_view bytes);
  result<void> restart(const std::string& etag);  // empties it: what comes now bears this tag
  // Checks size and checksum, then gives the file its name.
  result<void> finish(const hub_file& expected);
  void discard();  // gives up what is here; the part is no more

 private:
  explicit hub_part(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path part_path() const { return path_.string() + ".part"; }
  std::filesystem::path etag_path() const { return path_.string() + ".part.etag"; }
  error failed(const std::string& doing) const;

  std::filesystem::path path_;
  int file_ = -1;
  std::uint64_t bytes_ = 0;
  std::string etag_;
};

// Whether the file at `path` has the expected size and checksum; what is not known is not checked.
result<void> check_file(const std::filesystem::path& path, const hub_file& expected);

}  // namespace tandem::model
