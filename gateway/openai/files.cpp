// /v1/files: uploads go to disk as they come (file_form), contents leave it piece by piece. Files
// that jobs made (purpose *-results, *-output) are read here, and can be deleted, like others.
#include "gateway/json_writer.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/file_form.hpp"
#include "gateway/openai/list_query.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tandem::gateway::openai {

namespace {

constexpr int files_listed_max = 10'000;
constexpr std::size_t piece_bytes = 256 << 10;

void append_file(std::string& out, const store::file_record& file) {
  out += R"({"object":"file","id":)";
  append_json_string(out, file.id);
  out += R"(,"purpose":)";
  append_json_string(out, file.purpose);
  out += R"(,"filename":)";
  append_json_string(out, file.filename);
  out += R"(,"bytes":)";
  append_number(out, file.bytes);
  out += R"(,"created_at":)";
  append_number(out, file.created_at);
  out += R"(,"expires_at":null,"status":"processed","status_details":null})";
}

http_response file_response(const store::file_record& file) {
  http_response response;
  append_file(response.body, file);
  return response;
}

// Ids are compared exactly, so any other text is one that does not exist.
result<store::file_record> named_file(const store::store& files, const http_request& request) {
  ensure(request.path_parameters.size() == 1, "the route of a file names one");
  return files.find_file(request.path_parameters.front());
}

// filename="…" in plain ASCII, and the true name beside it (RFC 6266).
std::string disposition(const std::string& name) {
  std::string plain;
  std::string escaped;
  for (const char c : name) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '-' || c == '_';
    plain += safe || c == ' ' ? c : '_';
    if (safe)
      escaped += c;
    else
      escaped += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return fmt::format("attachment; filename=\"{}\"; filename*=UTF-8''{}", plain, escaped);
}

class open_file {
 public:
  explicit open_file(int file) : file_(file) {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() { ::close(file_); }

  result<std::string> next() const {
    std::string piece(piece_bytes, '\0');
    for (;;) {
      const ssize_t got = ::read(file_, piece.data(), piece.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return error{errc::io, std::strerror(errno), {}};
      piece.resize(static_cast<std::size_t>(got));
      return piece;
    }
  }

 private:
  int file_;
};

result<void> send_content(const store::store& files, const store::file_record& file,
                          responder& to) {
  const auto path = files.file_path(file.id);
  const int opened = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (opened < 0)
    return error{errc::io,
                 fmt::format("The bytes of {} cannot be read: {}.", file.id, std::strerror(errno)),
                 {}};
  const auto source = std::make_shared<open_file>(opened);
  struct stat status {};
  if (::fstat(opened, &status) != 0)
    return error{errc::io, fmt::format("The bytes of {} cannot be read.", file.id), {}};
  http_response head;
  head.content_type = "application/octet-stream";
  head.headers.emplace_back("content-disposition", disposition(file.filename));
  to.send_pieces(std::move(head), static_cast<std::uint64_t>(status.st_size),
                 [source] { return source->next(); });
  return {};
}

}  // namespace

sink_opener file_upload(endpoint_context context) {
  return [context = std::move(context)](const http_request& request) {
    return file_form::open(request, context.store, context.file_bytes_max);
  };
}

http_handler create_file() {
  return answering([](const http_request& request, const std::shared_ptr<responder>& to) {
    auto* const form = dynamic_cast<file_form*>(request.sink.get());
    ensure(form != nullptr, "an upload's body is in its form");
    const auto file = form->keep();
    if (!file) return result<void>(file.error());
    to->send(file_response(*file));
    return result<void>();
  });
}

http_handler list_files(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto query = read_list_query(request, files_listed_max, files_listed_max);
    if (!query) return result<void>(query.error());
    const auto page = context.store->list_files(request.query_parameter("purpose"), query->after,
                                                query->limit, query->oldest_first);
    if (!page) return result<void>(page.error());
    http_response response;
    response.body = list_body(page->rows, page->has_more, append_file);
    to->send(std::move(response));
    return result<void>();
  });
}

http_handler retrieve_file(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto file = named_file(*context.store, request);
    if (!file) return result<void>(file.error());
    to->send(file_response(*file));
    return result<void>();
  });
}

http_handler delete_file(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto file = named_file(*context.store, request);
    if (!file) return result<void>(file.error());
    if (auto removed = context.store->remove_file(file->id); !removed) {
      auto why = removed.error();
      // Clients repeat a 409 by themselves: here only the end of a job can help.
      if (why.code == errc::conflict) why.code = errc::bad_request;
      return result<void>(why);
    }
    http_response response;
    response.body = R"({"object":"file","id":)";
    append_json_string(response.body, file->id);
    response.body += R"(,"deleted":true})";
    to->send(std::move(response));
    return result<void>();
  });
}

http_handler file_content(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto file = named_file(*context.store, request);
    if (!file) return result<void>(file.error());
    return send_content(*context.store, *file, *to);
  });
}

}  // namespace tandem::gateway::openai
