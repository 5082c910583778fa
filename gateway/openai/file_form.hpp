// The body of an upload on its way to the store: the file's bytes go to a part file as they come,
// the other fields stay here. Fields come in any order; what was written is gone when this is,
// unless the store took it.
#pragma once

#include "gateway/http.hpp"
#include "gateway/openai/multipart_parser.hpp"
#include "runtime/store/store.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace tandem::gateway::openai {

class file_form final : public body_sink, private multipart_listener {
 public:
  // Refused when the Content-Type announces no form.
  static result<std::shared_ptr<body_sink>> open(const http_request& request,
                                                 std::shared_ptr<store::store> files,
                                                 std::int64_t file_bytes_max);
  file_form(std::string_view boundary, std::shared_ptr<store::store> files,
            std::int64_t file_bytes_max);
  ~file_form() override;

  result<void> write(std::string_view bytes) override;
  result<void> finish() override;

  // After finish: checks the fields and gives the file to the store.
  result<store::file_record> keep();

 private:
  enum class field : std::uint8_t { none, file, purpose, other };

  result<void> on_part(const multipart_part& part) override;
  result<void> on_data(std::string_view bytes) override;
  result<void> on_part_end() override;
  result<void> write_file(std::string_view bytes);
  result<void> check_lines() const;  // JSON lines, as far as the first tells

  const std::shared_ptr<store::store> files_;
  const std::int64_t file_bytes_max_;
  multipart_parser parser_;
  field now_ = field::none;

  std::filesystem::path part_path_;
  int file_ = -1;
  std::int64_t bytes_ = 0;
  std::string beginning_;  // of the file
  std::optional<std::string> filename_;
  std::optional<std::string> purpose_;
};

// What a name that came with a file is kept as: without folders and control characters, valid
// UTF-8.
std::string clean_filename(std::string_view given);

}  // namespace tandem::gateway::openai
