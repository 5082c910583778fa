// The one file that includes every library, whichever folder otherwise owns it: to name them.
#include "gateway/command/linked_versions.hpp"

#include "build_info.hpp"  // made by cmake/build_info.cmake

#include <curl/curl.h>
#include <fmt/core.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <CLI/Version.hpp>
#include <boost/version.hpp>
#include <caf/config.hpp>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <simdjson.h>
#include <spdlog/version.h>
#include <toml++/impl/version.h>
#include <unicode/uvernum.h>

#ifdef TANDEM_CAIRO
#include <cairo.h>
#endif

#include <array>

namespace tandem::gateway::command {
namespace {

std::string dotted(int major, int minor, int patch) {
  return fmt::format("{}.{}.{}", major, minor, patch);
}

std::string pcre2_version() {
  std::array<char, 64> text{};
  pcre2_config(PCRE2_CONFIG_VERSION, text.data());
  return text.data();
}

std::string openssl_version() {
  const std::string text = OpenSSL_version(OPENSSL_VERSION_STRING);
  return text.substr(0, text.find(' '));
}

}  // namespace

build_facts this_build() {
  return {TANDEM_BUILT_VERSION, TANDEM_BUILT_COMMIT,
#ifdef __clang__
          "clang " __clang_version__,
#else
          "gcc " __VERSION__,
#endif
          TANDEM_BUILT_AS};
}

std::vector<std::pair<std::string, std::string>> linked_versions() {
  std::vector<std::pair<std::string, std::string>> all = {
      {"CAF", dotted(CAF_VERSION / 10000, CAF_VERSION / 100 % 100, CAF_VERSION % 100)},
      {"Boost", dotted(BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
      {"simdjson", dotted(simdjson::SIMDJSON_VERSION_MAJOR, simdjson::SIMDJSON_VERSION_MINOR,
                          simdjson::SIMDJSON_VERSION_REVISION)},
      {"OpenSSL", openssl_version()},
      {"PCRE2", pcre2_version()},
      {"ICU", U_ICU_VERSION},
      {"libcurl", curl_version_info(CURLVERSION_NOW)->version},
      {"libpq", fmt::format("{}.{}", PQlibVersion() / 10000, PQlibVersion() % 10000)},
      {"fmt", dotted(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"spdlog", dotted(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
      {"CLI11", CLI11_VERSION},
      {"toml++", dotted(TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
  };
#ifdef TANDEM_CAIRO
  all.emplace_back("cairo", cairo_version_string());
#endif
  return all;
}

}  // namespace tandem::gateway::command
