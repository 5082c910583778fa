#include "runtime/model/hub_http.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <mutex>

namespace tandem::model {
namespace {

struct transfer {
  const http_request& request;
  http_head head;
  std::optional<error> failed;
};

void start_curl_once() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

std::optional<std::uint64_t> number_at(std::string_view text) {
  std::uint64_t n = 0;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), n);
  if (parsed.ptr == text.data() || parsed.ec != std::errc{}) return std::nullopt;
  return n;
}

// The value of "Name: value\r\n" when the line is of that header.
std::optional<std::string_view> header_value(std::string_view line, std::string_view name) {
  if (line.size() <= name.size() || line[name.size()] != ':' ||
      !curl_strnequal(line.data(), name.data(), name.size()))
    return std::nullopt;
  line.remove_prefix(name.size() + 1);
  while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n' || line.back() == ' '))
    line.remove_suffix(1);
  return line;
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* user) {
  auto& t = *static_cast<transfer*>(user);
  std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // each answer of a chain of redirects begins anew
    t.head = {};
    std::size_t space = line.find(' ');
    if (space != std::string_view::npos)
      t.head.status = static_cast<long>(number_at(line.substr(space + 1)).value_or(0));
  } else if (auto etag = header_value(line, "etag")) {
    t.head.etag = std::string(*etag);
  } else if (auto length = header_value(line, "content-length")) {
    t.head.content_bytes = number_at(*length);
  } else if (auto range = header_value(line, "content-range")) {
    if (range->starts_with("bytes ")) t.head.range_start = number_at(range->substr(6));
  } else if (auto retry = header_value(line, "retry-after")) {
    if (auto seconds = number_at(*retry))
      t.head.retry_after_s = static_cast<std::int64_t>(std::min<std::uint64_t>(*seconds, 3600));
  }
  return size * count;
}

bool is_cancelled(transfer& t) {
  if (!t.request.cancelled || !t.request.cancelled()) return false;
  t.failed = error{errc::cancelled, "the pull was cancelled; what is here is kept", {}};
  return true;
}

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* user) {
  auto& t = *static_cast<transfer*>(user);
  if (is_cancelled(t)) return 0;  // ends the transfer
  auto taken = t.request.body(t.head, std::string_view(data, size * count));
  if (taken) return size * count;
  t.failed = taken.error();
  return 0;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return is_cancelled(*static_cast<transfer*>(user)) ? 1 : 0;  // while nothing comes, too
}

struct free_handle {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using header_list = std::unique_ptr<curl_slist, free_handle>;

void add_header(header_list& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  ensure(longer != nullptr, "curl_slist_append out of memory");
  (void)list.release();
  list.reset(longer);
}

}  // namespace

result<http_head> http_get(const http_request& request) {
  start_curl_once();
  std::unique_ptr<CURL, free_handle> curl(curl_easy_init());
  ensure(curl != nullptr, "curl_easy_init out of memory");
  transfer t{request, {}, std::nullopt};
  header_list headers;
  for (const std::string& line : request.headers) add_header(headers, line);
  char why[CURL_ERROR_SIZE] = "";

  CURL* c = curl.get();
  curl_easy_setopt(c, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(c, CURLOPT_MAXREDIRS, 8L);
  if (!request.token.empty()) {
    // As credentials, not as a header of our own: libcurl drops them when the host changes.
    curl_easy_setopt(c, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, request.token.c_str());
    curl_easy_setopt(c, CURLOPT_UNRESTRICTED_AUTH, 0L);
  }
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(c, CURLOPT_USERAGENT, "tandem");
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);  // a minute without a byte: it is gone
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, &t);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &t);
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, &t);

  CURLcode code = curl_easy_perform(c);
  if (t.failed) return *t.failed;
  if (code != CURLE_OK)
    return error{
        errc::io, request.url + ": " + (why[0] != '\0' ? why : curl_easy_strerror(code)), {}};
  return t.head;
}

std::string url_escaped(std::string_view text, bool keep_slashes) {
  constexpr char hex[] = "0123456789ABCDEF";
  constexpr std::string_view plain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  for (char c : text) {
    if (plain.find(c) != std::string_view::npos || (keep_slashes && c == '/')) {
      out += c;
    } else {
      auto byte = static_cast<unsigned char>(c);
      out += {'%', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return out;
}

}  // namespace tandem::model
