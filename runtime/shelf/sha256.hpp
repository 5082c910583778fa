// SHA-256 of what comes in pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace tandem::shelf {

inline constexpr std::size_t sha256_hex_digits = 64;

class sha256 {
 public:
  sha256();

  void add(std::span<const std::byte> bytes);
  void add(std::string_view text);
  std::string finish();  // hexadecimal; what is added next begins another

 private:
  void begin();
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace tandem::shelf
