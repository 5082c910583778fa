#include "runtime/text/byte_trie.hpp"

namespace tandem::text {

void byte_trie::insert(std::string_view key, token_id value) {
  if (key.empty()) return;
  node at = root;
  for (const char byte : key) {
    node next = step(at, byte);
    if (next == nowhere) {
      next = static_cast<node>(ids_.size());
      ids_.push_back(no_token);
      if (at == root) {
        first_[static_cast<unsigned char>(byte)] = next;
      } else {
        edges_.insert(static_cast<token_id>(at), static_cast<unsigned char>(byte), {next, 0});
      }
    }
    at = next;
  }
  ids_[at] = value;
}

}  // namespace tandem::text
