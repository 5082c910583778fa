#include "runtime/shelf/sha256.hpp"

#include "kernels/ensure.hpp"

#include <openssl/evp.h>

#include <array>

namespace tandem::shelf {

sha256::sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  ensure(context_ != nullptr, "no digest context");
  begin();
}

void sha256::begin() {
  ensure(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "no SHA-256");
}

void sha256::add(std::span<const std::byte> bytes) {
  ensure(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "SHA-256 of a piece");
}

void sha256::add(std::string_view text) { add(std::as_bytes(std::span(text))); }

std::string sha256::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  ensure(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1, "the end of a SHA-256");
  constexpr char hex[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += {hex[digest[i] >> 4], hex[digest[i] & 15]};
  begin();
  return text;
}

}  // namespace tandem::shelf
