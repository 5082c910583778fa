// A multipart form with one file as the body of a Beast request (RFC 7578): the file goes from the
// disk to the socket in pieces and is never whole in memory.
#pragma once

#include "gateway/command/http_client.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/optional.hpp>

#include <array>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

namespace tandem::gateway::command {

struct upload_body {
  struct value_type {
    std::filesystem::path file;
    std::string before;  // the fields, and the head of the file's part
    std::string after;
    std::uint64_t file_bytes = 0;  // when it was opened: what is announced is what is sent
  };

  static std::uint64_t size(const value_type& body) {
    return body.before.size() + body.file_bytes + body.after.size();
  }

  class writer {
   public:
    using const_buffers_type = boost::asio::const_buffer;

    template <bool is_request, class Fields>
    writer(boost::beast::http::header<is_request, Fields>&, const value_type& body) : body_(body) {}

    void init(boost::system::error_code& failed);
    boost::optional<std::pair<const_buffers_type, bool>> get(boost::system::error_code& failed);

   private:
    enum class part : std::uint8_t { before, file, after };

    const value_type& body_;
    std::ifstream in_;
    std::uint64_t left_ = 0;
    part next_ = part::before;
    std::array<char, 65536> piece_;
  };
};

// The form of `upload`, and the content type that names its boundary. The file is refused here when
// it cannot be read.
struct upload_form {
  upload_body::value_type body;
  std::string content_type;
};
result<upload_form> form_of(const file_upload& upload);

}  // namespace tandem::gateway::command
