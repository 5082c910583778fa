#include "gateway/command/upload_body.hpp"

#include <fmt/format.h>
#include <boost/system/errc.hpp>

#include <algorithm>
#include <random>

namespace tandem::gateway::command {
namespace {

// A name inside quotes, as browsers send it (WHATWG HTML, "multipart/form-data").
std::string in_quotes(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    if (c == '"')
      out += "%22";
    else if (c == '\r')
      out += "%0D";
    else if (c == '\n')
      out += "%0A";
    else
      out += c;
  }
  return out + '"';
}

// 128 random bits: no file holds it but by being made for it, and nobody knows it beforehand.
std::string fresh_boundary() {
  std::random_device entropy;
  std::string boundary = "tandem-";
  for (int i = 0; i < 4; ++i) boundary += fmt::format("{:08x}", entropy());
  return boundary;
}

boost::system::error_code unreadable() { return make_error_code(boost::system::errc::io_error); }

}  // namespace

void upload_body::writer::init(boost::system::error_code& failed) {
  failed = {};
  in_.open(body_.file, std::ios::binary);
  left_ = body_.file_bytes;
  if (!in_) failed = unreadable();
}

boost::optional<std::pair<boost::asio::const_buffer, bool>> upload_body::writer::get(
    boost::system::error_code& failed) {
  failed = {};
  if (next_ == part::before) {
    next_ = left_ > 0 ? part::file : part::after;
    return {{boost::asio::buffer(body_.before), true}};
  }
  if (next_ == part::after) return {{boost::asio::buffer(body_.after), false}};
  in_.read(piece_.data(),
           static_cast<std::streamsize>(std::min<std::uint64_t>(piece_.size(), left_)));
  const auto got = static_cast<std::size_t>(in_.gcount());
  if (got ==
      0) {  // it became shorter meanwhile, or the disk fails: what was announced cannot be sent
    failed = unreadable();
    return boost::none;
  }
  left_ -= got;
  if (left_ == 0) next_ = part::after;
  return {{boost::asio::buffer(piece_.data(), got), true}};
}

result<upload_form> form_of(const file_upload& upload) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(upload.file, failed)) {
    return error{errc::not_found,
                 std::filesystem::exists(upload.file, failed)
                     ? fmt::format("{} is no regular file", upload.file.string())
                     : fmt::format("no file {}", upload.file.string()),
                 {}};
  }
  const auto bytes = std::filesystem::file_size(upload.file, failed);
  if (failed || !std::ifstream(upload.file, std::ios::binary)) {
    return error{errc::io, fmt::format("{} cannot be read", upload.file.string()), {}};
  }
  const std::string boundary = fresh_boundary();
  upload_form form;
  form.content_type = "multipart/form-data; boundary=" + boundary;
  form.body.file = upload.file;
  form.body.file_bytes = bytes;
  for (const auto& [name, text] : upload.fields) {
    form.body.before += fmt::format("--{}\r\nContent-Disposition: form-data; name={}\r\n\r\n{}\r\n",
                                    boundary, in_quotes(name), text);
  }
  form.body.before += fmt::format(
      "--{}\r\nContent-Disposition: form-data; name=\"file\"; filename={}\r\n"
      "Content-Type: application/octet-stream\r\n\r\n",
      boundary, in_quotes(upload.file.filename().string()));
  form.body.after = fmt::format("\r\n--{}--\r\n", boundary);
  return form;
}

}  // namespace tandem::gateway::command
